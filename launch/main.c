/* tessera: one binary, a command each for looking, planning, generating and scoring. */
#include "launch/batch/run_command.h"
#include "launch/bench/bench_command.h"
#include "launch/cli/backends.h"
#include "launch/cli/config.h"
#include "launch/cli/manual.h"
#include "launch/cli/shell_completion.h"
#include "launch/client/chat_command.h"
#include "launch/client/load_command.h"
#include "launch/doctor/doctor_command.h"
#include "launch/job/signals.h"
#include "launch/plan/inspect_command.h"
#include "launch/plan/plan_command.h"
#include "launch/plan/plan_request.h"
#include "launch/score/score_command.h"
#include "launch/serve/serve_command.h"
#include "runtime/base/log.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static tsr_log_level level_of(const char *name)
{
    static const char *const names[] = {"error", "warn", "info", "debug"};
    int level = TSR_LOG_DEBUG;
    while (level > TSR_LOG_ERROR && strcmp(names[level], name) != 0)
        level--;
    return (tsr_log_level)level;
}

static tsr_status inspect_command(const tsr_config *config, const tsr_launch_info *info)
{
    const tsr_inspect_args args = {.folder = config->folder,
                                   .html = config->html,
                                   .json = config->json,
                                   .colour = info->colour_out,
                                   .out = stdout};
    return tsr_inspect(&args);
}

static tsr_status plan_command(const tsr_config *config, const tsr_launch_info *info)
{
    tsr_plan_request request;
    const tsr_status st = tsr_plan_request_read(config, tsr_backend_of(config->backend),
                                                config->target, (int32_t)config->ranks, &request);
    return st == TSR_OK
               ? tsr_plan_show(config->folder, &request, config->json, info->colour_out, stdout)
               : st;
}

static tsr_status run_command(const tsr_config *config, const tsr_launch_info *info)
{
    switch (config->command) {
    case TSR_COMMAND_INSPECT:
        return info->rank == 0 ? inspect_command(config, info) : TSR_OK;
    case TSR_COMMAND_PLAN:
        return info->rank == 0 ? plan_command(config, info) : TSR_OK;
    case TSR_COMMAND_RUN:
        return tsr_run_command(config, info);
    case TSR_COMMAND_SCORE:
        return tsr_score_command(config, info);
    case TSR_COMMAND_BENCH:
        return tsr_load_is_asked(config) ? tsr_load_command(config, stdout)
                                         : tsr_bench_command(config, info);
    case TSR_COMMAND_DOCTOR:
        return tsr_doctor_command(config, info, stdout);
    case TSR_COMMAND_SERVE: /* these have codes of their own */
    case TSR_COMMAND_CHAT:
        break;
    }
    return TSR_ERR_INTERNAL;
}

static bool prints_text(const tsr_config *config)
{
    return config->help || config->version || config->manual || config->completion;
}

static void print_text(const tsr_config *config, FILE *out)
{
    if (config->help)
        tsr_config_help(config->command, out);
    else if (config->version)
        (void)fputs("tessera " TSR_VERSION "\n", out);
    else if (config->manual)
        tsr_manual_write(out);
    else
        tsr_shell_completion_write(out);
}

/* What parsing cannot see: options that need, or rule out, each other. */
static tsr_status check_command(const tsr_config *config, const tsr_launch_info *info)
{
    if (prints_text(config))
        return TSR_OK;
    if (info->mpi && config->local_ranks > 0) {
        tsr_log(TSR_LOG_ERROR, "--local-ranks is for one process: leave it out under mpirun");
        return TSR_ERR_ARG;
    }
    if (config->command == TSR_COMMAND_RUN)
        return tsr_run_command_check(config);
    if (config->command == TSR_COMMAND_BENCH)
        return tsr_bench_command_check(config);
    if (config->command == TSR_COMMAND_SERVE)
        return tsr_serve_command_check(config, info);
    if (config->command == TSR_COMMAND_CHAT)
        return tsr_chat_command_check(config, info);
    return config->command == TSR_COMMAND_SCORE ? tsr_score_command_check(config) : TSR_OK;
}

static void drop_line(void *context, tsr_log_level level, const char *line)
{
    (void)context;
    (void)level;
    (void)line;
}

static tsr_status read_command(int argc, char **argv, const tsr_launch_info *info,
                               tsr_config *ret_config)
{
    const tsr_status st = tsr_config_parse(argc, argv, ret_config);
    return st == TSR_OK ? check_command(ret_config, info) : st;
}

/* Whoever writes finds out by the write that fails, and says what it was. */
static void ignore_write_signals(void)
{
    const struct sigaction ignored = {.sa_handler = SIG_IGN};
    (void)sigaction(SIGPIPE, &ignored, NULL);
    (void)sigaction(SIGXFSZ, &ignored, NULL);
}

/* What was printed is on its way. */
static tsr_status flush_output(tsr_status st)
{
    const bool good = fflush(stdout) == 0 && ferror(stdout) == 0;
    if (good || st != TSR_OK)
        return st;
    tsr_log(TSR_LOG_ERROR, "standard output: cannot be written: %s", strerror(errno));
    return TSR_ERR_OUTPUT;
}

int main(int argc, char **argv)
{
    tsr_signals_watch();
    const struct timespec a_while = {.tv_sec = 5};
    const tsr_launch_info info = tsr_launch_info_read(argv);
    tsr_config config;

    ignore_write_signals();
    tsr_signals_be(info.mpi ? info.rank : -1, false);
    /* Every rank reads the same command line, and one is enough to say what is wrong with it. The
     * others let rank 0 say it, for the launcher ends the job with whoever exits first; where they
     * alone are wrong (another environment on their host) they say it themselves. */
    if (info.rank != 0)
        tsr_log_set_sink(drop_line, NULL);
    tsr_status st = read_command(argc, argv, &info, &config);
    tsr_log_set_sink(NULL, NULL);
    if (st != TSR_OK && info.rank != 0) {
        (void)nanosleep(&a_while, NULL);
        st = read_command(argc, argv, &info, &config);
    }
    if (st != TSR_OK)
        return tsr_status_exit_code(st);
    if (prints_text(&config)) {
        if (info.rank == 0)
            print_text(&config, stdout);
        return tsr_status_exit_code(flush_output(TSR_OK));
    }
    tsr_log_set_level(info.rank == 0 ? level_of(config.log_level) : TSR_LOG_WARN);
    if (config.command == TSR_COMMAND_SERVE || config.command == TSR_COMMAND_CHAT) {
        int code = 0;
        if (config.command == TSR_COMMAND_SERVE)
            tsr_serve_command(&config, &info, &code);
        else
            tsr_chat_command(&config, &info, &code);
        return code;
    }
    st = flush_output(run_command(&config, &info));
    const bool alone = config.command == TSR_COMMAND_INSPECT || config.command == TSR_COMMAND_PLAN;
    if (alone && st == TSR_ERR_MEMORY && !tsr_log_has_error())
        tsr_log(TSR_LOG_ERROR, "%s", tsr_status_text(st));
    return tsr_status_exit_code(st);
}
