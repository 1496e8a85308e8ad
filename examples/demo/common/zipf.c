/* SPDX-License-Identifier: MIT */
/* Traffic for those who have no access log at hand: skewed like real ones, the same every time. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "names.h"
#include "random.h"
#include "traffic.h"

enum {
	URL_COUNT = 2000,
	CLIENT_COUNT = 2000,
	REQUEST_COUNT = 20000,
};

/* web objects: half of them below 8 KiB, a long tail up to the clip */
#define SIZE_BYTES_MEDIAN 8192.0
#define SIZE_LOG_SIGMA	  1.6
#define SIZE_BYTES_MIN	  64.0

static double *zipf_new(size_t count, double exponent)
{
	double *cumulative = malloc(count * sizeof(*cumulative));
	double sum = 0;

	if (!cumulative)
		return NULL;
	for (size_t i = 0; i < count; i++) {
		sum += 1.0 / pow((double)(i + 1), exponent);
		cumulative[i] = sum;
	}
	return cumulative;
}

/* the first rank whose cumulative weight reaches the draw */
static size_t zipf_draw(const double *cumulative, size_t count, uint64_t *random)
{
	double draw = demo_random_unit(random) * cumulative[count - 1];
	size_t low = 0;
	size_t high = count - 1;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (cumulative[middle] < draw)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static double normal_draw(uint64_t *random)
{
	double radius = sqrt(-2.0 * log(demo_random_unit(random)));

	return radius * cos(6.283185307179586 * demo_random_unit(random));
}

/* a function of the rank alone, so that a page has one size however often it is drawn */
static uint64_t page_size_bytes(size_t rank)
{
	uint64_t random = demo_mix(rank);
	double size = SIZE_BYTES_MEDIAN * exp(SIZE_LOG_SIGMA * normal_draw(&random));

	if (size < SIZE_BYTES_MIN)
		size = SIZE_BYTES_MIN;
	if (size > DEMO_PAGE_SIZE_BYTES_MAX)
		size = DEMO_PAGE_SIZE_BYTES_MAX;
	return (uint64_t)size;
}

static int add_drawn(struct demo_traffic *traffic, size_t url_rank, size_t client_rank)
{
	char path[32];
	char client[32];

	snprintf(path, sizeof(path), "/page/%04zu", url_rank);
	/* 198.18.0.0/15 is set aside for benchmarks */
	snprintf(client, sizeof(client), "198.18.%zu.%zu", client_rank / 250,
		 client_rank % 250 + 1);
	return demo_traffic_add(traffic, client, path, page_size_bytes(url_rank));
}

int demo_traffic_generate(struct demo_traffic *traffic)
{
	double *url_weights = zipf_new(URL_COUNT, 0.9);
	double *client_weights = zipf_new(CLIENT_COUNT, 0.8);
	uint64_t random = 1;
	int rc = 0;

	*traffic = (struct demo_traffic){0};
	if (!url_weights || !client_weights)
		rc = -ENOMEM;
	for (size_t i = 0; rc == 0 && i < REQUEST_COUNT; i++) {
		size_t url_rank = zipf_draw(url_weights, URL_COUNT, &random);
		size_t client_rank = zipf_draw(client_weights, CLIENT_COUNT, &random);

		rc = add_drawn(traffic, url_rank, client_rank);
	}
	free(url_weights);
	free(client_weights);
	if (rc < 0)
		demo_traffic_close(traffic);
	return rc;
}
