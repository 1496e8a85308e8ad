/* SPDX-License-Identifier: MIT */
#ifndef DEMO_SERVER_SOCKET_H
#define DEMO_SERVER_SOCKET_H

#include <stdint.h>

/*
 * A TCP socket bound to 127.0.0.1 with SO_REUSEPORT; several processes may have one each. As long
 * as one of them is open, the port stays ours, whoever is killed. port 0 takes a free one and says
 * which. Returns the descriptor or -errno.
 */
int demo_socket_bind(uint16_t *port);

/* demo_socket_bind() and listen, non-blocking */
int demo_socket_listen(uint16_t port);

#endif
