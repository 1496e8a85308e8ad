/* SPDX-License-Identifier: MIT */
#include "sigbus.h"

#include "errors.h"
#include "shmctl.h"

#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static char subject[256];
static volatile sig_atomic_t is_looking, is_missing;
static uintptr_t page_bytes;

/* For the handler: nothing but write(2). */
static void say(const char *text)
{
	(void)!write(STDERR_FILENO, text, strlen(text));
}

static void on_sigbus(int signal, siginfo_t *info, void *context)
{
	void *page = (void *)((uintptr_t)info->si_addr & ~(page_bytes - 1));

	(void)signal;
	(void)context;
	if (is_looking && info->si_code == BUS_ADRERR &&
	    mmap(page, page_bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
		    page) {
		is_missing = 1;
		return;
	}
	say("shmctl: ");
	say(subject);
	say(": its file was cut short while it was in use\n"
	    "  remove it (shmctl rm) and create it again\n");
	_exit(STATUS_DAMAGE);
}

void sigbus_start(void)
{
	struct sigaction action = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO};

	page_bytes = (uintptr_t)sysconf(_SC_PAGESIZE);
	sigemptyset(&action.sa_mask);
	sigaction(SIGBUS, &action, NULL);
}

void sigbus_expect(const char *name, bool looks)
{
	snprintf(subject, sizeof(subject), "%s", name);
	is_looking = looks;
	is_missing = 0;
}

bool sigbus_met(void)
{
	bool met = is_missing;

	is_missing = 0;
	return met;
}

int sigbus_finish(int status)
{
	if (!sigbus_met())
		return status;
	return errors_say(STATUS_DAMAGE, subject, "its file was cut short while it was looked at",
			  "what is gone was taken for zeros; remove it (shmctl rm) and create it "
			  "again");
}
