/* SPDX-License-Identifier: MIT */
/* lua_shared_dict of nginx, from its workers. They answer no requests: HTTP is not what is asked for. */
#include "interpreter.h"

#include <stdio.h>
#include <unistd.h>

static struct interpreter nginx = {
	.note = "of a get in Lua, its loop, subtracted",
	.needs = "libnginx-mod-http-lua",
};

/* Everything that nginx wants to write lies in its folder, or nowhere. */
static void write_configuration(const struct store_shape *shape)
{
	static const char *const paths[] = {"client_body", "proxy", "fastcgi", "uwsgi", "scgi"};
	uint64_t all_bytes = (uint64_t)shape->key_count * (2 * shape->value_bytes + 512);
	uint64_t size_bytes = shape->evict_at_bytes ? shape->evict_at_bytes : all_bytes;
	FILE *file = fopen(nginx.files[INTERPRETER_CONF], "w");

	if (!file)
		bench_fail("nginx's configuration");
	fprintf(file,
		"load_module modules/ndk_http_module.so;\n"
		"load_module modules/ngx_http_lua_module.so;\n"
		"daemon off;\npid %s;\nerror_log stderr;\nworker_processes %d;\n%s"
		"events {}\nhttp {\naccess_log off;\nlua_shared_dict cache %llum;\n",
		nginx.files[INTERPRETER_PID], INTERPRETER_PROCS,
		geteuid() == 0 ? "user root;\n" : "",
		(unsigned long long)(size_bytes >> 20) + !shape->evict_at_bytes);
	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
		fprintf(file, "%s_temp_path %s;\n", paths[i], nginx.server.folder);
	fprintf(file,
		"init_by_lua_block {\n"
		"peer = dofile([==[%s/shared_dict.lua]==])\n"
		"peer.read('%s', %zu)\n}\n"
		"init_worker_by_lua_block { peer.serve('unix:%s') }\n}\n",
		BENCH_PEERS, nginx.files[INTERPRETER_KEYS], shape->value_bytes,
		nginx.server.socket);
	if (fclose(file))
		bench_fail("nginx's configuration");
}

static int nginx_open(const struct store_shape *shape)
{
	const char *arguments[] = {
		"nginx", "-e", "stderr", "-c", nginx.files[INTERPRETER_CONF], NULL,
	};

	interpreter_prepare(&nginx, shape);
	write_configuration(shape);
	return interpreter_start(&nginx, arguments);
}

static void nginx_fill(const struct store_shape *shape)
{
	interpreter_fill(&nginx, shape);
}

static void nginx_close(void)
{
	interpreter_stop(&nginx);
}

const struct store store_shared_dict = {
	.name = "lua_shared_dict, from nginx",
	.lacks = "workers of one nginx only; what a killed one held stays half done; Lua's loop is "
		 "subtracted",
	.evicts = 1,
	.interpreter = &nginx,
	.open = nginx_open,
	.fill = nginx_fill,
	.close = nginx_close,
};
