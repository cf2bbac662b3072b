/* The child is what `tessera serve` is, with a listener that was opened for it; if the chat is killed
 * the kernel tells it to end. */
#include "launch/client/chat_server.h"

#include "launch/http/http_server.h"
#include "launch/serve/gateway_command.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* A supervisor takes twice three seconds at most to end its ranks. */
enum { WORDS = 4, WORD_DIGITS = 8, END_MS = 10000, TURN_NS = 10000000, ANY_SIGNAL = 128 };

static const char own_host[] = "127.0.0.1";

static tsr_status make_key(char key[TSR_CHAT_KEY_BYTES])
{
    uint32_t words[WORDS];

    if (getrandom(words, sizeof(words), 0) != (ssize_t)sizeof(words)) {
        tsr_log(TSR_LOG_ERROR, "the system gives no random bytes: %s", strerror(errno));
        return TSR_ERR_INTERNAL;
    }
    for (size_t i = 0; i < WORDS; i++)
        (void)snprintf(key + WORD_DIGITS * i, WORD_DIGITS + 1, "%08x", (unsigned)words[i]);
    return TSR_OK;
}

/* Ctrl-C at the terminal is the chat's, and so is what is typed. */
_Noreturn static void serve(const tsr_chat_server *server, const tsr_gateway_command_args *args,
                            pid_t chat)
{
    tsr_config config = *args->config;
    tsr_gateway_command_args mine = *args;
    const int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
    int code = 0;

    (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != chat)
        _exit(0);
    (void)setpgid(0, 0);
    if (nothing >= 0)
        (void)dup2(nothing, STDIN_FILENO);
    config.command = TSR_COMMAND_SERVE;
    config.host = own_host;
    config.metrics_compat = "none";
    config.reasoning_field = "reasoning_content";
    config.shutdown_timeout = 1; /* whoever asked has left */
    config.api_key = (tsr_option_list){.items = {server->key}, .count = 1};
    mine.config = &config;
    tsr_gateway_command(&mine, &code);
    (void)fflush(NULL);
    _exit(code);
}

tsr_status tsr_chat_server_start(const tsr_config *config, const tsr_launch_info *info,
                                 tsr_chat_server *server)
{
    const pid_t chat = getpid();
    int listener = -1;

    tsr_status st = make_key(server->key);
    if (st == TSR_OK)
        st = tsr_listen_open(own_host, 0, &listener, &server->port);
    if (st != TSR_OK)
        return st;
    (void)snprintf(server->url, sizeof(server->url), "http://%s:%d", own_host, server->port);
    (void)fflush(NULL);
    const pid_t child = fork();
    if (child == 0)
        serve(server,
              &(tsr_gateway_command_args){
                  .config = config, .info = info, .listener = listener, .engine_fd = -1},
              chat);
    (void)close(listener);
    if (child < 0) {
        tsr_log(TSR_LOG_ERROR, "cannot start the server: %s", strerror(errno));
        return TSR_ERR_MEMORY;
    }
    server->process = child;
    return TSR_OK;
}

bool tsr_chat_server_has_ended(tsr_chat_server *server, int *ret_code)
{
    int status = 0;

    if (server->process <= 0 || waitpid(server->process, &status, WNOHANG) != server->process)
        return false;
    server->process = 0;
    *ret_code = WIFEXITED(status) ? WEXITSTATUS(status) : ANY_SIGNAL + WTERMSIG(status);
    return true;
}

void tsr_chat_server_end(tsr_chat_server *server)
{
    const struct timespec turn = {.tv_nsec = TURN_NS};
    const int64_t until_ms = tsr_clock_ms() + END_MS;
    int code = 0;

    if (server->process <= 0)
        return;
    (void)kill(server->process, SIGTERM);
    while (server->process > 0 && !tsr_chat_server_has_ended(server, &code)) {
        if (tsr_clock_ms() > until_ms)
            (void)kill(server->process, SIGKILL);
        (void)nanosleep(&turn, NULL);
    }
}
