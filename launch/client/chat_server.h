/*
 * A server for one chat: `tessera serve` as a process of its own, at a port of this machine that only
 * this chat has the key to. It ends with the chat, however that ends.
 */
#ifndef TSR_LAUNCH_CLIENT_CHAT_SERVER_H
#define TSR_LAUNCH_CLIENT_CHAT_SERVER_H

#include "launch/cli/config.h"

#include <sys/types.h>

enum { TSR_CHAT_KEY_BYTES = 33, TSR_CHAT_URL_BYTES = 48 };

/* Zero-initialise; start fills it, end always. */
typedef struct tsr_chat_server {
    pid_t process; /* 0: none */
    int32_t port;
    char url[TSR_CHAT_URL_BYTES];
    char key[TSR_CHAT_KEY_BYTES];
} tsr_chat_server;

/* Forks: before any thread. TSR_ERR_BIND, TSR_ERR_MEMORY, TSR_ERR_INTERNAL, logged */
TSR_MUST_USE tsr_status tsr_chat_server_start(const tsr_config *config, const tsr_launch_info *info,
                                              tsr_chat_server *server);

/* Whether it has ended by itself; it has said why. */
bool tsr_chat_server_has_ended(tsr_chat_server *server, int *ret_code);

/* Tells it to end, and waits. */
void tsr_chat_server_end(tsr_chat_server *server);

#endif
