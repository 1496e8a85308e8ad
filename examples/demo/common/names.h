/* SPDX-License-Identifier: MIT */
/*
 * What prefork-web and replay must agree on: header names, limits and defaults.
 *
 * The two programs share no memory and no code path at run time; this file is their whole contract
 * apart from the body function (body.h) and the ledgers (ledger.h).
 */
#ifndef DEMO_NAMES_H
#define DEMO_NAMES_H

/* Requests: whom the limiter shall charge. Without it the peer's address is charged. */
#define DEMO_HEADER_CLIENT "X-Client"

/* Responses. */
#define DEMO_HEADER_WORKER "X-Worker" /* index of the web worker that answered */
#define DEMO_HEADER_CACHE  "X-Cache"  /* HIT or MISS */
#define DEMO_HEADER_AGE_MS "X-Age-Ms" /* how long the page had been in the cache */

#define DEMO_PAGE_SIZE_BYTES_MAX (256u * 1024u)
#define DEMO_PAGE_TTL_MS	 5000u
#define DEMO_URL_SIZE_BYTES_MAX	 1024u

#define DEMO_WEB_WORKERS   4u
#define DEMO_QUEUE_WORKERS 2u

#define DEMO_LIMIT_RATE_PER_S 20u
#define DEMO_LIMIT_BURST      40u

/* An unknown URL gets a page of this size, so that a visitor with curl sees something. */
#define DEMO_PAGE_SIZE_BYTES_DEFAULT 1024u

#endif
