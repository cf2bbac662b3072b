/*
 * Which part a process has:
 *
 *   tessera serve DIR [--ranks N]     the gateway; it starts an engine and looks after it
 *   ... --engine-socket NAME          that engine, or one of its ranks
 *   mpirun -n N tessera serve DIR     rank 0 forks the gateway, before MPI and before any thread
 *                                     are there, and is the engine like the others
 */
#include "launch/serve/serve_command.h"

#include "launch/http/http_server.h"
#include "launch/job/ranks.h"
#include "launch/serve/engine_command.h"
#include "launch/serve/gateway_command.h"
#include "launch/serve/supervisor.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LAST_WORDS_MS = 5000, TURN_NS = 10000000 };

tsr_status tsr_serve_command_check(const tsr_config *config, const tsr_launch_info *info)
{
    const bool starts = config->ranks > 0 && config->engine_socket == NULL;

    if (info->mpi && starts) {
        tsr_log(TSR_LOG_ERROR,
                "--ranks is for a server that starts them itself: mpirun -n says how "
                "many there are");
        return TSR_ERR_ARG;
    }
    if (config->hostfile != NULL && config->ranks <= 0) {
        tsr_log(TSR_LOG_ERROR, "--hostfile belongs to --ranks");
        return TSR_ERR_ARG;
    }
    if (starts && config->local_ranks > 0) {
        tsr_log(TSR_LOG_ERROR, "--local-ranks are threads and --ranks processes: give one of them");
        return TSR_ERR_ARG;
    }
    return TSR_OK;
}

/* In the child: never returns into what only a rank may do. A launcher that ends a rank ends its
 * group; the gateway, in one of its own, still has clients to tell. It ends when the rank has. */
_Noreturn static void be_gateway(const tsr_gateway_command_args *args)
{
    int code = 0;

    (void)setpgid(0, 0);
    tsr_gateway_command(args, &code);
    (void)fflush(NULL);
    _exit(code);
}

static tsr_status fork_gateway(const tsr_config *config, const tsr_launch_info *info, int *ret_fd,
                               pid_t *ret_gateway)
{
    tsr_gateway_command_args args = {.config = config, .info = info};
    int ends[2];

    const tsr_status st =
        tsr_listen_open(config->host, (int32_t)config->port, &args.listener, &args.port);
    if (st != TSR_OK)
        return st;
    pid_t gateway = -1;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0) {
        gateway = fork();
        if (gateway == 0) {
            (void)close(ends[0]);
            args.engine_fd = ends[1];
            be_gateway(&args);
        }
        (void)close(ends[1]);
        if (gateway < 0)
            (void)close(ends[0]);
    }
    (void)close(args.listener);
    if (gateway < 0) {
        tsr_log(TSR_LOG_ERROR, "cannot start the gateway: %s", strerror(errno));
        return TSR_ERR_MEMORY;
    }
    *ret_fd = ends[0];
    *ret_gateway = gateway;
    return TSR_OK;
}

/* The gateway has a moment to bring its clients what it has for them. */
static void wait_for_gateway(pid_t gateway)
{
    const struct timespec turn = {.tv_nsec = TURN_NS};
    const int64_t until_ms = tsr_clock_ms() + LAST_WORDS_MS;

    while (waitpid(gateway, NULL, WNOHANG) == 0) {
        if (tsr_clock_ms() > until_ms)
            (void)kill(gateway, SIGKILL);
        (void)nanosleep(&turn, NULL);
    }
}

static tsr_status be_engine(const tsr_config *config, const tsr_launch_info *info)
{
    tsr_status st = TSR_OK;
    pid_t gateway = 0;
    int fd = -1;

    if (info->rank == 0 && config->engine_socket != NULL)
        st = tsr_supervisor_connect(config->engine_socket, &fd);
    else if (info->rank == 0)
        st = fork_gateway(config, info, &fd, &gateway);
    if (st == TSR_OK)
        st = tsr_engine_command(config, info, fd);
    if (gateway > 0)
        wait_for_gateway(gateway);
    return st;
}

/* A server that starts its ranks itself knows how many there will be. mpirun may start them in an
 * allocation of more processes; an engine alone may not be one of several. */
static tsr_status check_size(const tsr_config *config, const tsr_launch_info *info)
{
    const tsr_launch_info nobody = {0};
    const int64_t threads = config->local_ranks > 0 ? config->local_ranks : 1;

    if (config->ranks > 0)
        return tsr_ranks_check_size(config, &nobody, (int32_t)config->ranks);
    return tsr_ranks_check_size(config, info, (int32_t)threads);
}

void tsr_serve_command(const tsr_config *config, const tsr_launch_info *info, int *ret_code)
{
    tsr_gateway_command_args args = {.config = config, .info = info, .engine_fd = -1};

    if (info->mpi || config->engine_socket != NULL) {
        *ret_code = tsr_status_exit_code(be_engine(config, info));
        return;
    }
    tsr_status st = check_size(config, info);
    if (st == TSR_OK)
        st = tsr_listen_open(config->host, (int32_t)config->port, &args.listener, &args.port);
    if (st == TSR_OK)
        tsr_gateway_command(&args, ret_code);
    else
        *ret_code = tsr_status_exit_code(st);
}
