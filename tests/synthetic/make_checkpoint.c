/* make_checkpoint: a checkpoint of random weights, of any shape and precision, at disk speed. */
#include "runtime/base/log.h"
#include "runtime/base/machine.h"
#include "runtime/synthetic/synthetic.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DECIMAL = 10, MOST = 1 << 30 };

static const char usage[] =
    "make_checkpoint --shape NAME --out DIR [--precision MAP] [--layers N] [--vocab V] [--seed S]\n"
    "                [--threads N]\n"
    "\n"
    "  --shape      what is made: see below\n"
    "  --precision  MODULE=FORMAT[,FORMAT ...][,MODULE=...], bf16 where nothing is said. Of "
    "several\n"
    "               formats the first layer that has the module takes the first, the next layer "
    "the\n"
    "               second, and around again: experts=nvfp4,fp8 is half of the layers each.\n"
    "  --layers     the first N layers instead of all\n"
    "  --vocab      V ids instead of the shape's\n"
    "  --seed       another seed, other weights [1]\n"
    "  --threads    that write [all cores]\n";

static void list(const char *title, const char *(*name_at)(size_t))
{
    (void)printf("  %s", title);
    for (size_t i = 0; name_at(i) != NULL; i++)
        (void)printf(" %s", name_at(i));
    (void)printf("\n");
}

static tsr_status read_number(const char *option, const char *text, int64_t *ret_number)
{
    char *end = NULL;
    const long long number = strtoll(text, &end, DECIMAL);

    if (end == text || *end != '\0' || number < 0 || number > MOST) {
        tsr_log(TSR_LOG_ERROR, "--%s %s: expected a whole number", option, text);
        return TSR_ERR_ARG;
    }
    *ret_number = number;
    return TSR_OK;
}

static tsr_status read_options(int argc, char **argv, tsr_synthetic_request *request,
                               bool *ret_help)
{
    static const struct option options[] = {
        {"shape", required_argument, NULL, 's'},
        {"out", required_argument, NULL, 'o'},
        {"precision", required_argument, NULL, 'p'},
        {"layers", required_argument, NULL, 0},
        {"vocab", required_argument, NULL, 1},
        {"seed", required_argument, NULL, 2},
        {"threads", required_argument, NULL, 3},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    const tsr_machine_cpus cpus = tsr_machine_cpus_read("");
    int64_t number[4] = {0, 0, 1, tsr_machine_threads(&cpus, 1)};
    int at = 0;

    for (int c; (c = getopt_long(argc, argv, "h", options, &at)) != -1;) {
        if (c == '?')
            return TSR_ERR_ARG;
        if (c == 's')
            request->shape = optarg;
        else if (c == 'o')
            request->folder = optarg;
        else if (c == 'p')
            request->precision = optarg;
        else if (c == 'h')
            *ret_help = true;
        else if (read_number(options[at].name, optarg, &number[c]) != TSR_OK)
            return TSR_ERR_ARG;
    }
    request->layers = (int32_t)number[0];
    request->vocab = (int32_t)number[1];
    request->seed = (uint64_t)number[2];
    request->threads = (int32_t)number[3];
    if (!*ret_help && (request->shape == NULL || request->folder == NULL || optind < argc)) {
        tsr_log(TSR_LOG_ERROR, "make_checkpoint needs --shape NAME and --out DIR, see --help");
        return TSR_ERR_ARG;
    }
    return TSR_OK;
}

int main(int argc, char **argv)
{
    tsr_synthetic_request request = {0};
    tsr_synthetic_result made;
    bool help = false;

    tsr_status st = read_options(argc, argv, &request, &help);
    if (st == TSR_OK && help) {
        (void)printf("%s\n", usage);
        list("shapes ", tsr_synthetic_shape_name);
        list("modules", tsr_synthetic_module_name);
        list("formats", tsr_synthetic_format_name);
        return 0;
    }
    if (st == TSR_OK)
        st = tsr_synthetic_write(&request, &made);
    if (st != TSR_OK)
        return tsr_status_exit_code(st);
    const double seconds = (double)made.ns / 1e9;
    (void)printf("%s: %d tensors in %d files, %.3f GB in %.2f s, %.2f GB/s\n", request.folder,
                 made.tensors, made.files, (double)made.bytes / 1e9, seconds,
                 (double)made.bytes / 1e9 / seconds);
    return 0;
}
