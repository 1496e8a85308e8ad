/* SPDX-License-Identifier: MIT */
#include "errors.h"

#include "attach.h"
#include "holders.h"
#include "output.h"
#include "segments.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char last_detail[512];
static char advice[512];
static bool in_json;

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
	advice[0] = '\0';
}

void errors_in_json(void)
{
	in_json = true;
}

void errors_advise(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(advice, sizeof(advice), format, arguments);
	va_end(arguments);
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

static void say_in_json(int status, const char *subject, const char *what, const char *fix)
{
	json_t *document = json_pack("{s:o, s:s, s:i}", "subject", output_json_text(subject),
				     "error", what, "exit_code", status);

	if (last_detail[0])
		json_object_set_new(document, "detail", output_json_text(last_detail));
	if (fix)
		json_object_set_new(document, "fix", output_json_text(fix));
	output_json(document);
}

int errors_say(int status, const char *subject, const char *what, const char *fix)
{
	if (advice[0])
		fix = advice;
	if (in_json && !output_has_json())
		say_in_json(status, subject, what, fix);
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
	{EROFS, "remount the file system writable; the verbs that look (--help) work as it is"},
	{EUSERS, "detach some processes, or create the segment anew with a larger --members"},
};

static const char *fix_of(int error, const char *sentence)
{
	const char *colon = strstr(sentence, ": ");

	for (size_t i = 0; i < sizeof(fixes) / sizeof(fixes[0]); i++)
		if (fixes[i].error == abs(error))
			return fixes[i].fix;
	/* Its fix is to look at the detail: on the line above, or nowhere. */
	if (abs(error) == EINVAL)
		return NULL;
	return colon ? colon + 2 : NULL;
}

/* A sentence of coshm_strerror is "what it means: what to do". */
int errors_fail(const char *subject, int error)
{
	const char *sentence = coshm_strerror(error);
	char what[256];

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

/* Not verify, which cannot read it either. What has no magic number may be anybody's file. */
static void advise_unreadable(const struct target *target, const char *path)
{
	if (segments_has_magic(path))
		errors_advise("it cannot be repaired: stop those who use it (fuser -v %s), then "
			      "shmctl rm %s",
			      path, target->segment);
	else if (!strncmp(path, SEGMENTS_FOLDER "/", strlen(SEGMENTS_FOLDER) + 1))
		errors_advise("check the name; if it was a segment, its start was overwritten and "
			      "it is lost: stop those who use it, then rm %s",
			      path);
	else
		errors_advise("check the path; shmctl leaves files alone that are no segments");
}

int errors_fail_segment(const struct target *target, int error)
{
	const char *path = attach_path(target->segment);
	struct stat file;
	char fix[512];
	int status;

	switch (-error) {
	case EUCLEAN:
		advise_unreadable(target, path);
		return errors_fail(target->segment, error);
	case ETIMEDOUT:
		if (holders_stopped(path, fix, sizeof(fix) / 2))
			errors_advise("%s has it open and is stopped: kill -CONT makes it go on, "
				      "and kill -9 frees the lock, too",
				      fix);
		else
			errors_advise("see who has it open (fuser -v %s) and keeps the others "
				      "waiting; killing it frees the lock",
				      path);
		return errors_fail(target->segment, error);
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
		if (stat(path, &file) == 0 && file.st_mode & S_IWOTH)
			errors_advise("chmod o-w %s, if what is in it can still be trusted", path);
		status = errors_fail(target->segment, error);
		explain_permission(path);
		return status;
	default:
		return errors_fail(target->segment, error);
	}
}

int errors_fail_create(const struct target *target, const struct coshm_segment_config *config,
		       int error)
{
	const char *path = attach_path(target->segment);
	const char *slash = strrchr(path, '/');
	struct stat file;
	char folder[512];
	int status;

	snprintf(folder, sizeof(folder), "%.*s", slash == path ? 1 : (int)(slash - path), path);
	if (stat(path, &file) == 0 && error != -ENOSPC && error != -EEXIST)
		return errors_fail_segment(target, error);
	switch (-error) {
	case EACCES:
		if (config->mode && (config->mode & 0600) != 0600) {
			errors_advise(
				"with --mode %04o its owner could not use it: the first digit "
				"is 6, as in 0600",
				config->mode);
			return errors_fail(target->segment, error);
		}
		errors_advise("choose a folder that you may write to; a name without / lies in "
			      "%s",
			      SEGMENTS_FOLDER);
		status = errors_fail(target->segment, error);
		explain_permission(folder);
		return status;
	case EPERM:
		if (config->group_id_set)
			errors_advise("only root and the members of a group can give it a file: "
				      "choose one of yours (id -Gn)");
		break;
	case ENOSPC:
		errors_advise("see how much room there is: df -h %s", folder);
		break;
	}
	return errors_fail(target->segment, error);
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

	if (error == -EUCLEAN)
		return errors_say(STATUS_DAMAGE, target->text, "the object is damaged",
				  "remove it and create it again, or ask shmctl verify for more");
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
