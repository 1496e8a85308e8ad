/* SPDX-License-Identifier: MIT */
/*
 * prefork-web - a prefork web server whose workers share a limiter, a cache and a queue
 *
 * To read it as an example of coshm: server/app.c creates the objects, server/web.c and lookup.c
 * are the request path, server/render.c is a queue worker. The rest is a server as any other, and
 * server/killer.c, which is why the rest has nothing to say about recovery.
 */
#include <stdio.h>

#include <coshm/coshm.h>

#include "demo/common/traffic.h"
#include "demo/server/master.h"
#include "demo/server/options.h"

int main(int argc, char **argv)
{
	struct demo_web_options options;
	struct demo_traffic traffic;
	int status = demo_web_options_read(argc, argv, &options);
	int rc;

	if (status != -1)
		return status;
	rc = demo_traffic_open(&traffic, options.log_path);
	if (rc < 0) {
		fprintf(stderr, "prefork-web: %s: %s\n",
			options.log_path ? options.log_path : "generating traffic",
			coshm_strerror(rc));
		return 1;
	}
	status = demo_master_main(&options, &traffic);
	demo_traffic_close(&traffic);
	return status;
}
