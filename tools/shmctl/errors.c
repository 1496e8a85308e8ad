/* SPDX-License-Identifier: MIT */
#include "errors.h"

#include "attach.h"
#include "output.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char last_detail[512];

static void listen_to_library(void *context, int level, const char *message)
{
	(void)context;
	if (level == COSHM_LOG_ERROR)
		snprintf(last_detail, sizeof(last_detail), "%s", message);
}

void errors_listen(void)
{
	coshm_set_log(listen_to_library, NULL, COSHM_LOG_ERROR);
}

void errors_forget(void)
{
	last_detail[0] = '\0';
}

static const struct {
	int error;
	int status;
} statuses[] = {
	{EINVAL, STATUS_USAGE},		  {ENAMETOOLONG, STATUS_USAGE},
	{ENOENT, STATUS_ABSENT},	  {ENOTDIR, STATUS_ABSENT},
	{ESTALE, STATUS_ABSENT},	  {ESHUTDOWN, STATUS_ABSENT},
	{EACCES, STATUS_PERMISSION},	  {EPERM, STATUS_PERMISSION},
	{EPROTONOSUPPORT, STATUS_LAYOUT}, {EUCLEAN, STATUS_DAMAGE},
	{ENOTRECOVERABLE, STATUS_DAMAGE}, {EBADFD, STATUS_PERMISSION},
};

int errors_status(int error)
{
	for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++)
		if (statuses[i].error == abs(error))
			return statuses[i].status;
	return STATUS_FAILURE;
}

int errors_say(int status, const char *subject, const char *what, const char *fix)
{
	fflush(stdout);
	fprintf(stderr, "shmctl: %s: %s\n", subject, what);
	if (last_detail[0])
		fprintf(stderr, "  %s\n", last_detail);
	if (fix)
		fprintf(stderr, "  %s\n", fix);
	errors_forget();
	return status;
}

/* Where the library names its own options, the tool names the command line's. */
static const struct {
	int error;
	const char *fix;
} fixes[] = {
	{EPERM, "if you trust its owner, say --any-owner"},
	{EEXIST, "use what is there, or remove it first with shmctl rm"},
	{EMSGSIZE, "create the queue with a larger --max-payload"},
	{EDQUOT, "remove an object, or create the segment with a larger --max-size"},
	{ENOSPC, "free some room, or create the segment with a larger --max-size"},
	{EUSERS, "detach some processes, or create the segment anew for more members"},
};

static const char *fix_of(int error, const char *sentence)
{
	const char *colon = strstr(sentence, ": ");

	for (size_t i = 0; i < sizeof(fixes) / sizeof(fixes[0]); i++)
		if (fixes[i].error == abs(error))
			return fixes[i].fix;
	/* Its fix is to look at the detail, which is on the line above. */
	if (abs(error) == EINVAL && last_detail[0])
		return NULL;
	return colon ? colon + 2 : NULL;
}

/* A sentence of coshm_strerror is "what it means: what to do". */
int errors_fail(const char *subject, int error)
{
	const char *sentence = coshm_strerror(error);
	char what[128];

	snprintf(what, sizeof(what), "%s", sentence);
	if (strstr(what, ": "))
		*strstr(what, ": ") = '\0';
	return errors_say(errors_status(error), subject, what, fix_of(error, sentence));
}

/* "the file belongs to www-data:www-data with mode 0640, and you are deploy" beats a hint about permissions. */
static void explain_permission(const char *path)
{
	const struct passwd *user;
	const struct group *group;
	char owner[64], group_name[64];
	struct stat status;

	if (stat(path, &status) != 0)
		return;
	user = getpwuid(status.st_uid);
	if (user)
		snprintf(owner, sizeof(owner), "%s", user->pw_name);
	else
		snprintf(owner, sizeof(owner), "%u", status.st_uid);
	group = getgrgid(status.st_gid);
	if (group)
		snprintf(group_name, sizeof(group_name), "%s", group->gr_name);
	else
		snprintf(group_name, sizeof(group_name), "%u", status.st_gid);
	user = getpwuid(geteuid());
	fprintf(stderr, "  %s belongs to %s:%s with mode %04o; you are %s\n", path, owner,
		group_name, status.st_mode & 07777, user ? user->pw_name : "a user without a name");
}

int errors_fail_segment(const struct target *target, int error)
{
	const char *path = attach_path(target->segment);
	struct stat file;
	char fix[512];
	int status;

	switch (-error) {
	case ENOENT:
		/* There is a file, but no segment in it (yet): the library says why. */
		if (stat(path, &file) == 0)
			return errors_fail(target->segment, error);
		snprintf(fix, sizeof(fix),
			 "see what is there: shmctl ls; make it: shmctl create %s --size 64M",
			 target->segment);
		errors_forget();
		return errors_say(STATUS_ABSENT, target->segment, "no such segment", fix);
	case EACCES:
	case EBADFD:
	case EPERM:
		status = errors_fail(target->segment, error);
		explain_permission(path);
		return status;
	default:
		return errors_fail(target->segment, error);
	}
}

const char *errors_type_name(unsigned int object_type)
{
	switch (object_type) {
	case COSHM_OBJECT_CACHE:
		return "cache";
	case COSHM_OBJECT_LIMITER:
		return "limiter";
	case COSHM_OBJECT_QUEUE:
		return "queue";
	default:
		return "unknown";
	}
}

struct neighbours {
	const char *name;  /* what was asked for */
	unsigned int type; /* what it is, 0 if it is not there */
	size_t length;
	char list[384];
};

static int note_neighbour(void *context, const struct coshm_object_info *info)
{
	struct neighbours *neighbours = context;
	size_t room = sizeof(neighbours->list) - neighbours->length;
	char *name;
	int length;

	if (info->removed)
		return 0;
	name = output_escape(info->name, strlen(info->name), 0);
	if (!strcmp(info->name, neighbours->name))
		neighbours->type = info->type;
	length = snprintf(neighbours->list + neighbours->length, room, "%s%s (%s)",
			  neighbours->length ? ", " : "", name, errors_type_name(info->type));
	free(name);
	if (length > 0 && (size_t)length < room)
		neighbours->length += (size_t)length;
	else
		neighbours->list[neighbours->length] = '\0';
	return 0;
}

int errors_fail_object(const struct target *target, const char *type, int error,
		       struct coshm_segment *segment)
{
	struct neighbours neighbours = {.name = target->object};
	char what[64], fix[512];

	if (error != -ENOENT && error != -EPROTOTYPE)
		return errors_fail(target->text, error);
	errors_forget();
	if (coshm_inspect_objects(segment, note_neighbour, &neighbours) < 0)
		neighbours.length = 0;
	if (neighbours.length)
		snprintf(fix, sizeof(fix), "%s has: %s", target->segment, neighbours.list);
	else
		snprintf(fix, sizeof(fix), "%s holds no objects yet: shmctl cache create --help",
			 target->segment);
	if (error == -EPROTOTYPE)
		snprintf(what, sizeof(what), "is a %s, not a %s", errors_type_name(neighbours.type),
			 type);
	else
		snprintf(what, sizeof(what), "no such object");
	return errors_say(STATUS_ABSENT, target->text, what, fix);
}
