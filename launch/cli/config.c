/* One way in for every value: presets or the environment, then the command line go through the same
 * store, each over the one before, and are refused in the same words. */
#include "launch/cli/config.h"

#include "launch/cli/command_table.h"
#include "launch/cli/option_table.h"
#include "runtime/base/log.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { NAME_BYTES = 64, MAX_OPTIONS = 96, FAR = 1000 };

/*
 * What launchers say of a process: Open MPI's mpirun, those that speak PMI or PMIx, and Slurm, whose
 * srun starts processes that know nothing of each other where it was given no --mpi. The first that
 * says anything is the one that started this process: mpirun may itself run in a job of Slurm's.
 */
typedef struct launcher_row {
    bool mpi;
    const char *rank;
    const char *sizes[3]; /* the first that is set counts */
    const char *job;
    const char *local_rank;
    const char *local_size;
} launcher_row;

static const launcher_row launchers[] = {
    {true,
     "OMPI_COMM_WORLD_RANK",
     {"OMPI_COMM_WORLD_SIZE"},
     "PMIX_NAMESPACE",
     "OMPI_COMM_WORLD_LOCAL_RANK",
     "OMPI_COMM_WORLD_LOCAL_SIZE"},
    {true,
     "PMIX_RANK",
     {"SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"},
     "PMIX_NAMESPACE",
     "SLURM_LOCALID",
     NULL},
    {true,
     "PMI_RANK",
     {"PMI_SIZE", "SLURM_STEP_NUM_TASKS"},
     NULL,
     "MPI_LOCALRANKID",
     "MPI_LOCALNRANKS"},
    {false,
     "SLURM_PROCID",
     {"SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "SLURM_NPROCS"},
     NULL,
     NULL,
     NULL},
    {false, NULL, {"SLURM_NTASKS", "SLURM_NPROCS"}, NULL, NULL, NULL},
};

/* What names the network between hosts; the first that is set counts. */
static const char *const mpi_networks[] = {"OMPI_MCA_btl_tcp_if_include",
                                           "OMPI_MCA_btl_tcp_if_exclude", "UCX_NET_DEVICES"};
static const char *const nccl_networks[] = {"NCCL_SOCKET_IFNAME", "NCCL_OOB_NET_IFNAME"};

static const char *first_set(const char *const *names, size_t count)
{
    const char *value = NULL;

    for (size_t i = 0; i < count && value == NULL; i++)
        value = getenv(names[i]);
    return value;
}

/* A number of the environment, or `otherwise`. */
static int32_t environment_number(const char *name, int32_t otherwise)
{
    const char *text = name != NULL ? getenv(name) : NULL;
    char *end = NULL;

    if (text == NULL)
        return otherwise;
    const long number = strtol(text, &end, 10);
    return end == text || number < 0 || number > INT32_MAX ? otherwise : (int32_t)number;
}

static void read_launcher(const launcher_row *row, tsr_launch_info *info)
{
    info->mpi = row->mpi;
    info->rank = environment_number(row->rank, 0);
    for (size_t i = 0; i < sizeof(row->sizes) / sizeof(row->sizes[0]) && info->size == 0; i++) {
        info->size = environment_number(row->sizes[i], 0);
        info->size_name = row->sizes[i];
    }
    info->job = row->job != NULL ? getenv(row->job) : NULL;
    info->local_rank = environment_number(row->local_rank, -1);
    info->local_size = environment_number(row->local_size, 0);
}

tsr_launch_info tsr_launch_info_read(char *const *arguments)
{
    const bool colour = getenv("NO_COLOR") == NULL;
    tsr_launch_info info = {.arguments = arguments,
                            .colour_out = colour && isatty(STDOUT_FILENO),
                            .colour_err = colour && isatty(STDERR_FILENO),
                            .mpi_network = first_set(mpi_networks, 3),
                            .nccl_network = first_set(nccl_networks, 2),
                            .local_rank = -1};

    for (size_t i = 0; i < sizeof(launchers) / sizeof(launchers[0]); i++) {
        if (launchers[i].rank != NULL && getenv(launchers[i].rank) == NULL)
            continue;
        read_launcher(&launchers[i], &info);
        break;
    }
    return info;
}

/*
 * The factor of "k", "G" or "GiB", moving *text behind it; 1 for none, 0 for nonsense. Sizes are
 * decimal unless an i says otherwise; counts are as vLLM has them: 1k is 1000, 1K is 1024.
 */
static double read_unit(const char **text, bool size)
{
    static const char units[] = "kmgt";
    const char *at = *text;
    const char *unit = *at ? strchr(units, tolower((unsigned char)*at)) : NULL;
    if (unit == NULL)
        return *at ? 0 : 1;
    at++;

    bool binary = !size && isupper((unsigned char)at[-1]);
    if (size && (*at == 'i' || *at == 'I')) {
        binary = true;
        at++;
    }
    if (size && (*at == 'B' || *at == 'b'))
        at++;
    *text = at;
    return pow(binary ? 1024.0 : 1000.0, (double)(unit - units + 1));
}

/* "25.6k", "32K", "24GiB": a number and its unit. */
static bool read_option_number(const char *text, bool size, double *ret_value)
{
    char *end = NULL;

    errno = 0;
    const double value = strtod(text, &end);
    if (end == text || errno != 0 || isnan(value))
        return false;
    const char *rest = end;
    *ret_value = value * read_unit(&rest, size);
    return *rest == '\0';
}

bool tsr_config_read_size(const char *text, int64_t *ret_bytes)
{
    double bytes = 0;
    if (!read_option_number(text, true, &bytes) || bytes < 1 || bytes > 0x1p53)
        return false;
    *ret_bytes = (int64_t)bytes;
    return true;
}

static bool among_choices(const char *choices, const char *value)
{
    const size_t bytes = strlen(value);
    for (const char *at = choices; at != NULL;
         at = strchr(at, '|') != NULL ? strchr(at, '|') + 1 : NULL) {
        if (strncmp(at, value, bytes) == 0 && (at[bytes] == '|' || at[bytes] == '\0'))
            return true;
    }
    return false;
}

static tsr_status store_number(const tsr_option_row *row, const char *value, void *field)
{
    double number = 0;
    const bool good = read_option_number(value, row->kind == TSR_OPTION_SIZE, &number) &&
                      number >= row->low && number <= row->high &&
                      (row->kind == TSR_OPTION_NUMBER || number == floor(number));
    if (!good) {
        tsr_log(TSR_LOG_ERROR, "--%s %s: expected %s from %.16g to %.16g", row->name, value,
                row->kind == TSR_OPTION_NUMBER ? "a number" : "a whole number", row->low,
                row->high);
        return TSR_ERR_ARG;
    }
    if (row->kind == TSR_OPTION_NUMBER)
        *(double *)field = number;
    else
        *(int64_t *)field = (int64_t)number;
    return TSR_OK;
}

static tsr_status store_listed(const tsr_option_row *row, const char *value, tsr_option_list *list)
{
    if (list->count == TSR_MAX_LISTED || value[0] == '\0') {
        tsr_log(TSR_LOG_ERROR, "--%s: at most %d texts, none empty", row->name, TSR_MAX_LISTED);
        return TSR_ERR_ARG;
    }
    list->items[list->count++] = value;
    return TSR_OK;
}

static tsr_status store(const tsr_option_row *row, const char *value, tsr_config *config)
{
    void *field = (char *)config + row->offset;
    char choices[TSR_CHOICES_BYTES];

    switch (row->kind) {
    case TSR_OPTION_FLAG:
        *(bool *)field = strcmp(value, "0") != 0 && strcmp(value, "false") != 0;
        return TSR_OK;
    case TSR_OPTION_TEXT:
        *(const char **)field = value;
        return TSR_OK;
    case TSR_OPTION_CHOICE:
        if (!among_choices(tsr_option_choices(row->name, choices), value)) {
            tsr_log(TSR_LOG_ERROR, "--%s %s: expected one of %s", row->name, value, choices);
            return TSR_ERR_ARG;
        }
        *(const char **)field = value;
        return TSR_OK;
    case TSR_OPTION_LIST:
        return store_listed(row, value, field);
    case TSR_OPTION_INTEGER:
    case TSR_OPTION_SIZE:
    case TSR_OPTION_NUMBER:
        return store_number(row, value, field);
    }
    return TSR_ERR_INTERNAL;
}

/* Edits that turn one name into the other, for names of ordinary length. */
static int distance(const char *a, const char *b)
{
    const size_t n = strlen(b);
    int row[NAME_BYTES];

    if (n >= NAME_BYTES)
        return FAR;
    for (size_t j = 0; j <= n; j++)
        row[j] = (int)j;
    for (size_t i = 0; a[i]; i++) {
        int diagonal = row[0];
        row[0] = (int)i + 1;
        for (size_t j = 0; j < n; j++) {
            const int replace = diagonal + (a[i] != b[j]);
            const int drop = (row[j] < row[j + 1] ? row[j] : row[j + 1]) + 1;
            diagonal = row[j + 1];
            row[j + 1] = replace < drop ? replace : drop;
        }
    }
    return row[n];
}

static void log_unknown(const char *argument, unsigned command)
{
    const char *nearest = NULL;
    int best = FAR;
    char name[NAME_BYTES] = {0};

    (void)snprintf(name, sizeof(name), "%.*s", (int)strcspn(argument, "="), argument);
    const char *bare = name + strspn(name, "-");
    for (size_t i = 0; i < tsr_option_count; i++) {
        const int d = distance(bare, tsr_option_rows[i].name);
        if ((tsr_option_rows[i].commands & command) && d < best) {
            best = d;
            nearest = tsr_option_rows[i].name;
        }
    }
    if (nearest != NULL && best <= 4)
        tsr_log(TSR_LOG_ERROR, "unknown option %s: did you mean --%s?", name, nearest);
    else
        tsr_log(TSR_LOG_ERROR, "unknown option %s: see --help", name);
}

/* The environment's word for an option, or NULL. */
static const char *environment_value(const tsr_option_row *row, char name[NAME_BYTES])
{
    (void)snprintf(name, NAME_BYTES, "TESSERA_%s", row->name);
    for (char *c = name; *c; c++)
        *c = (char)(*c == '-' ? '_' : toupper((unsigned char)*c));
    return getenv(name);
}

static tsr_status store_environment(unsigned command, tsr_config *config)
{
    for (size_t i = 0; i < tsr_option_count; i++) {
        const tsr_option_row *row = &tsr_option_rows[i];
        char name[NAME_BYTES];
        if (!(row->commands & command))
            continue;

        const char *given = environment_value(row, name);
        const char *value = given != NULL ? given : row->preset;
        const tsr_status st = value != NULL ? store(row, value, config) : TSR_OK;
        if (st != TSR_OK && given != NULL)
            tsr_log(TSR_LOG_ERROR, "%s of the environment is not usable", name);
        if (st != TSR_OK)
            return st;
        config->has_seed |= given != NULL && row->offset == offsetof(tsr_config, seed);
    }
    return TSR_OK;
}

static tsr_status store_arguments(int argc, char **argv, unsigned command, tsr_config *config)
{
    struct option longs[MAX_OPTIONS] = {0};
    int count = 0;
    int rows[MAX_OPTIONS] = {0};

    for (size_t i = 0; i < tsr_option_count && count < MAX_OPTIONS - 1; i++) {
        const tsr_option_row *row = &tsr_option_rows[i];
        if (!(row->commands & command))
            continue;
        const int argument = row->kind == TSR_OPTION_FLAG ? no_argument : required_argument;
        rows[count] = (int)i;
        longs[count++] = (struct option){row->name, argument, NULL, 0};
    }

    opterr = 0;
    optind = 1;
    int at = 0;
    for (int c; (c = getopt_long(argc, argv, ":h", longs, &at)) != -1;) {
        if (c == 'h') {
            config->help = true;
        } else if (c == ':') {
            tsr_log(TSR_LOG_ERROR, "%s needs a value", argv[optind - 1]);
            return TSR_ERR_ARG;
        } else if (c == '?') {
            log_unknown(argv[optind - 1], command);
            return TSR_ERR_ARG;
        } else {
            const tsr_option_row *row = &tsr_option_rows[rows[at]];
            const tsr_status st = store(row, optarg != NULL ? optarg : "1", config);
            if (st != TSR_OK)
                return st;
            config->has_seed |= row->offset == offsetof(tsr_config, seed);
        }
    }
    if (optind < argc)
        config->folder = argv[optind++];
    if (optind < argc) {
        tsr_log(TSR_LOG_ERROR, "unexpected argument %s", argv[optind]);
        return TSR_ERR_ARG;
    }
    return TSR_OK;
}

/* --max_tokens is --max-tokens. */
static void dash_names(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strncmp(argv[i], "--", 2) != 0)
            continue;
        for (char *c = argv[i]; *c && *c != '='; c++)
            *c = (char)(*c == '_' ? '-' : *c);
    }
}

static bool asks_to_print(const char *word, tsr_config *config)
{
    for (size_t i = 0; i < tsr_printed_count; i++) {
        if (strcmp(word, tsr_printed_rows[i].word) == 0) {
            *(bool *)((char *)config + tsr_printed_rows[i].offset) = true;
            return true;
        }
    }
    return false;
}

static tsr_status refuse_command(const char *name)
{
    enum { NAMES_BYTES = 128 };
    char names[NAMES_BYTES] = "";
    size_t used = 0;

    for (size_t i = 0; i < tsr_command_count && used < NAMES_BYTES; i++)
        used += (size_t)snprintf(names + used, NAMES_BYTES - used, i > 0 ? ", %s" : "%s",
                                 tsr_command_rows[i].name);
    tsr_log(TSR_LOG_ERROR, "unknown command %s: one of %s", name, names);
    return TSR_ERR_ARG;
}

tsr_status tsr_config_parse(int argc, char **argv, tsr_config *ret_config)
{
    tsr_config config = {.temperature = (double)NAN, .top_p = (double)NAN, .top_k = -1};

    if (argc < 2 || asks_to_print(argv[1], &config)) {
        config.help |= argc < 2;
        *ret_config = config;
        return TSR_OK;
    }
    const tsr_command_row *row = tsr_command_find(argv[1]);
    if (row == NULL)
        return refuse_command(argv[1]);
    config.command = row->command;

    dash_names(argc - 1, argv + 1);
    tsr_status st = store_environment(row->command, &config);
    if (st == TSR_OK)
        st = store_arguments(argc - 1, argv + 1, row->command, &config);
    const bool takes_folder = row->argument != NULL;
    const bool wants_folder = takes_folder && row->command != TSR_COMMAND_CHAT;
    if (st == TSR_OK && !takes_folder && config.folder != NULL) {
        tsr_log(TSR_LOG_ERROR, "unexpected argument %s", config.folder);
        return TSR_ERR_ARG;
    }
    if (st == TSR_OK && wants_folder && config.folder == NULL && config.shape == NULL &&
        !config.help) {
        tsr_log(TSR_LOG_ERROR, "%s needs the folder of a checkpoint: tessera %s", row->name,
                row->usage);
        st = TSR_ERR_ARG;
    }
    if (st == TSR_OK)
        *ret_config = config;
    return st;
}

static void help_option(const tsr_option_row *row, FILE *out)
{
    char left[NAME_BYTES];
    char choices[TSR_CHOICES_BYTES];
    (void)snprintf(left, sizeof(left), "--%s%s%s", row->name, row->value != NULL ? " " : "",
                   row->value != NULL ? row->value : "");
    (void)fprintf(out, "  %-34s %s", left, row->help);
    if (tsr_option_choices(row->name, choices)[0] != '\0')
        (void)fprintf(out, " (%s)", choices);
    if (row->preset != NULL)
        (void)fprintf(out, " [%s]", row->preset);
    (void)fputc('\n', out);
}

void tsr_config_help(unsigned command, FILE *out)
{
    if (command == 0) {
        (void)fputs("tessera: mixture-of-experts models, every layer in its own precision, over "
                    "many ranks\n\n",
                    out);
        for (size_t i = 0; i < tsr_command_count; i++)
            (void)fprintf(out, "  tessera %s\n      %s\n", tsr_command_rows[i].usage,
                          tsr_command_rows[i].help);
        (void)fputs("\ntessera COMMAND --help lists a command's options. Every option can be set "
                    "in the environment:\nTESSERA_MAX_MODEL_LEN=32K is --max-model-len 32K. "
                    "tessera manual prints "
                    "all of it as a page for man,\ntessera completion what bash completes commands "
                    "by.\n",
                    out);
        return;
    }
    for (size_t i = 0; i < tsr_command_count; i++) {
        if (tsr_command_rows[i].command == command)
            (void)fprintf(out, "tessera %s\n  %s\n\n  %s\n\n", tsr_command_rows[i].usage,
                          tsr_command_rows[i].help, tsr_command_rows[i].example);
    }
    for (size_t i = 0; i < tsr_option_count; i++) {
        if (tsr_option_rows[i].commands & command)
            help_option(&tsr_option_rows[i], out);
    }
}
