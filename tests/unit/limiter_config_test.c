/* SPDX-License-Identifier: MIT */
/*
 * A decision reads its configuration in several loads. It is stopped in front of each of them while others configure, up
 * to two laps of the records and to any field of the next one: what it ends with is one configuration, never two in part.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/atomic.h"

/* --- the code under test, with a stop in front of each load --- */

static void stop_before_load(void);

#define coshm__a64_load_acquire(a) (stop_before_load(), coshm__a64_load_acquire(a))
#define coshm__a64_load_relaxed(a) (stop_before_load(), coshm__a64_load_relaxed(a))

#include "modules/limiter/config.h"

#undef coshm__a64_load_acquire
#undef coshm__a64_load_relaxed

enum { LOADS = 12, VERSIONS = 2 * COSHM__LIMITER_CONFIG_COUNT, FIELDS = 4 };

static struct coshm__limiter_shm shm __attribute__((aligned(128)));
static int loads_left, versions, fields;

/* The one of a version: each differs from all others in every field. */
static struct coshm__gcra gcra_of(uint64_t version)
{
	struct coshm__gcra gcra;

	assert_int_equal(coshm__gcra_make(1, 1000 * (version + 1), 10 + version, &gcra), 0);
	return gcra;
}

/* The first fields of what is to be in force as @version, in the order of configure. */
static void write_fields(uint64_t version, int count)
{
	struct coshm__limiter_config_shm *record =
		&shm.configs[version % COSHM__LIMITER_CONFIG_COUNT];
	struct coshm__a64 *to[FIELDS] = {&record->burst, &record->period, &record->capacity,
					 &record->capacity_ever};
	const struct coshm__gcra gcra = gcra_of(version);
	const uint64_t from[FIELDS] = {gcra.burst, gcra.period, gcra.capacity, gcra.capacity_ever};

	for (int i = 0; i < count; i++)
		coshm__a64_store_release(to[i], from[i]);
}

static void stop_before_load(void)
{
	uint64_t version = coshm__a64_load_relaxed(&shm.config_version);

	if (loads_left-- != 0)
		return;
	for (int i = 0; i < versions; i++) {
		write_fields(++version, FIELDS);
		coshm__a64_store_release(&shm.config_version, version);
	}
	write_fields(version + 1, fields);
}

static void decision_that_is_overtaken_uses_one_configuration(void **state)
{
	(void)state;
	for (int load = 0; load < LOADS; load++) {
		for (int how = 0; how <= VERSIONS * FIELDS + FIELDS - 1; how++) {
			struct coshm__gcra got, whole;

			coshm__a64_store_relaxed(&shm.config_version, 3);
			write_fields(3, FIELDS);
			loads_left = load;
			versions = how / FIELDS;
			fields = how % FIELDS;
			assert_int_equal(coshm__limiter_config_load(&shm, &got), 0);
			assert_true(got.burst >= 10 + 3 && got.burst <= 10 + 3 + VERSIONS);
			whole = gcra_of(got.burst - 10);
			assert_int_equal(got.period, whole.period);
			assert_int_equal(got.capacity, whole.capacity);
			assert_int_equal(got.capacity_ever, whole.capacity_ever);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(decision_that_is_overtaken_uses_one_configuration),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
