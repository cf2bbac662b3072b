/*
 * Every knob of every command, in one table: name, unit, range, default, one sentence. The table
 * parses the command line and the environment (TESSERA_MAX_MODEL_LEN for --max-model-len), and
 * writes --help. Command line before environment before default. Nothing else reads the
 * environment.
 */
#ifndef TSR_LAUNCH_CLI_CONFIG_H
#define TSR_LAUNCH_CLI_CONFIG_H

#include "runtime/base/status.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef enum tsr_command {
    TSR_COMMAND_INSPECT = 1,
    TSR_COMMAND_PLAN = 2,
    TSR_COMMAND_RUN = 4,
    TSR_COMMAND_SCORE = 8,
    TSR_COMMAND_BENCH = 16,
    TSR_COMMAND_DOCTOR = 32,
    TSR_COMMAND_SERVE = 64,
    TSR_COMMAND_CHAT = 128,
} tsr_command;

/* The values of an option that may be repeated, in their order. */
enum { TSR_MAX_LISTED = 16 };
typedef struct tsr_option_list {
    const char *items[TSR_MAX_LISTED]; /* [count], none empty */
    int32_t count;
} tsr_option_list;

/* Text fields point into argv or the environment; NULL means not given. Integers: 0 or below means
 * not given. */
typedef struct tsr_config {
    tsr_command command;
    const char *folder; /* the checkpoint */
    bool help;
    bool version; /* `tessera --version`; nothing else is set */
    bool manual;  /* `tessera manual`; likewise */
    bool completion;
    bool json;
    const char *html; /* inspect */

    const char *prompt; /* run */
    const char *chat;
    const char *system;
    const char *input;
    const char *output;
    bool resume;
    const char *report;
    const char *template_kwargs;
    const char *generation_config;
    tsr_option_list stop;
    int64_t max_tokens;
    double temperature; /* NaN: not given */
    double top_p;       /* NaN: not given */
    int64_t top_k;      /* -1: not given */
    int64_t seed;
    bool has_seed;
    bool ignore_eos;
    bool prefix_caching;
    bool no_prefix_caching;

    const char *tokens; /* score */
    const char *out;

    const char *shape; /* bench: instead of a folder; the next three go with it */
    const char *precision;
    int64_t layers;
    int64_t vocab;
    const char *scratch;
    const char *batch;
    const char *prefill;
    int64_t context;
    int64_t steps;
    const char *url; /* bench serve, as what follows; and chat */
    int64_t clients;
    int64_t requests;
    int64_t input_tokens;
    int64_t output_tokens;

    const char *target; /* plan */
    int64_t ranks;      /* and serve, where 0 starts none */

    const char *model; /* chat */

    const char *host; /* serve; chat too has what starts a server */
    int64_t port;     /* 0: any that is free */
    tsr_option_list served_model_name;
    tsr_option_list api_key;
    const char *ssl_certfile;
    const char *ssl_keyfile;
    const char *cors_origin;
    int64_t max_queue; /* 0: by what the engine runs at a time */
    int64_t client_timeout;
    int64_t sse_ping_interval; /* 0: none */
    int64_t shutdown_timeout;
    const char *metrics_compat;
    const char *reasoning_field;
    bool strict_api;
    const char *hostfile;
    int64_t restarts;
    int64_t restart_minutes;
    const char *engine_socket;

    const char *backend;
    const char *activations;
    const char *activations_of;
    const char *kv_cache_dtype;
    int64_t max_model_len;
    int64_t max_num_seqs;
    int64_t max_batched_tokens;
    int64_t exchange_tokens;
    int64_t block_size;
    int64_t memory;
    int64_t local_ranks;
    int64_t ranks_per_gpu;
    int64_t threads;
    const char *cpu_isa;
    const char *spread;
    int64_t prefill_chunk;
    int64_t expect_world_size;
    int64_t init_timeout;
    int64_t step_timeout;
    const char *log_level;
} tsr_config;

/* How this process was started. */
typedef struct tsr_launch_info {
    bool mpi;                 /* by mpirun, srun or the like */
    int32_t rank;             /* as the launcher says; 0 when alone */
    int32_t size;             /* processes of the job, as the launcher says; 0: it does not */
    const char *size_name;    /* of the variable that says so */
    const char *job;          /* what the launcher calls the job; NULL: nothing */
    int32_t local_rank;       /* among the job's processes on this host; -1: not known */
    int32_t local_size;       /* how many they are; 0: not known */
    const char *mpi_network;  /* the interfaces that MPI was told to use; NULL: none */
    const char *nccl_network; /* the same of NCCL */
    char *const *arguments;   /* of this program, NULL behind the last */
    bool colour_out;          /* a terminal is on stdout and NO_COLOR is not set */
    bool colour_err;          /* the same of stderr */
} tsr_launch_info;

/* `arguments` of main are borrowed. */
tsr_launch_info tsr_launch_info_read(char *const *arguments);

/*
 * TSR_ERR_ARG, logged: which option, what is wrong, the nearest name. *ret_config.help asks for
 * tsr_config_help instead of the command.
 */
TSR_MUST_USE tsr_status tsr_config_parse(int argc, char **argv, tsr_config *ret_config);

/* "24e9", "24G" and "24GiB" are amounts of memory; false for anything else. */
bool tsr_config_read_size(const char *text, int64_t *ret_bytes);

/* Usage, example and options of one command; of the program when `command` is 0. */
void tsr_config_help(unsigned command, FILE *out);

#endif
