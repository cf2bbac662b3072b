/*
 * A page that cannot be out of step: commands, options, defaults and exit codes are printed from
 * the tables by which they are parsed and returned. Options stand once: under their command, or
 * behind all commands where several take them.
 */
#include "launch/cli/manual.h"

#include "launch/cli/command_table.h"
#include "launch/cli/option_table.h"
#include "runtime/base/status.h"

#include <stdbool.h>
#include <string.h>

enum { LAST_EXIT_CODE = 255 };

static const char intro[] =
    ".SH DESCRIPTION\n"
    "Serves mixture-of-experts language models whose layers are each kept in their own precision, "
    "over many ranks.\n"
    "DIR is a checkpoint as NVIDIA ModelOpt exports it: a folder with\n"
    ".I config.json\n"
    "and\n"
    ".I *.safetensors\n"
    "files, which are served exactly as they say or refused by name.\n"
    ".PP\n"
    "Without\n"
    ".BR mpirun (1)\n"
    "a command runs on one rank, or with\n"
    ".B \\-\\-local\\-ranks\n"
    "on several threads that exchange exactly what processes would.\n"
    ".SH COMMANDS\n";

static const char environment[] =
    ".SH ENVIRONMENT\n"
    "Every option can be set in the environment, the command line before it:\n"
    ".B TESSERA_MAX_MODEL_LEN=32K\n"
    "is\n"
    ".BR \"\\-\\-max\\-model\\-len 32K\" .\n"
    ".B NO_COLOR\n"
    "keeps colours off terminals.\n";

static const char signals[] =
    ".SH SIGNALS\n"
    ".B SIGUSR1\n"
    "drains: no new request is taken, those that run are finished, the exit status is 0.\n"
    ".BR mpirun (1)\n"
    "passes it on to all ranks.\n"
    ".BR SIGHUP ,\n"
    ".B SIGINT\n"
    "and\n"
    ".B SIGTERM\n"
    "end a run at once, and keep what was answered; a server that starts its own ranks drains "
    "first.\n";

static const char files[] =
    ".SH FILES\n"
    "Below the prefix that it was installed to:\n"
    ".TP\n"
    ".I share/tessera/demo\\-mixed\n"
    "A small trained model, as DIR to try commands with.\n"
    ".TP\n"
    ".I share/doc/tessera/docs\n"
    "Operations, the HTTP API, how the program is made, and what was measured.\n"
    ".TP\n"
    ".I share/doc/tessera/examples\n"
    "Jobs for clusters.\n"
    ".SH SEE ALSO\n"
    ".BR mpirun (1)\n";

/* Text as it is: no hyphenation of options, no escapes, no requests at the start of a line. */
static void write_text(const char *text, FILE *out)
{
    if (text[0] == '.' || text[0] == '\'')
        (void)fputs("\\&", out);
    for (const char *c = text; *c; c++) {
        if (*c == '\\')
            (void)fputs("\\e", out);
        else if (*c == '\'')
            (void)fputs("\\(aq", out);
        else if (*c == '-')
            (void)fputs("\\-", out);
        else
            (void)fputc(*c, out);
    }
}

static void write_styled(char style, const char *text, FILE *out)
{
    (void)fprintf(out, "\\f%c", style);
    write_text(text, out);
    (void)fputs("\\fR", out);
}

static void write_commands(FILE *out)
{
    for (size_t i = 0; i < tsr_command_count; i++) {
        const tsr_command_row *row = &tsr_command_rows[i];
        (void)fputs(".TP\n", out);
        write_styled('B', "tessera ", out);
        write_text(row->usage, out);
        (void)fputc('\n', out);
        write_text(row->help, out);
        (void)fputs(".\n", out);
    }
    (void)fputs(".TP\n\\fBtessera manual\\fR, \\fBtessera completion\\fR\n"
                "Print this page, and what bash completes commands by.\n",
                out);
}

static bool taken_by_several(const tsr_option_row *row)
{
    return (row->commands & (row->commands - 1)) != 0;
}

static void write_takers(const tsr_option_row *row, FILE *out)
{
    const char *between = "Taken by ";

    for (size_t i = 0; i < tsr_command_count; i++) {
        if (!(row->commands & tsr_command_rows[i].command))
            continue;
        (void)fputs(between, out);
        write_styled('B', tsr_command_rows[i].name, out);
        between = ", ";
    }
    (void)fputs(".\n", out);
}

/* "a|b|c" as "One of a, b, c." */
static void write_choices(const char *choices, FILE *out)
{
    (void)fputs("One of ", out);
    for (const char *c = choices; *c; c++) {
        const char letter[] = {*c, '\0'};
        write_text(*c == '|' ? ", " : letter, out);
    }
    (void)fputs(".\n", out);
}

static void write_option(const tsr_option_row *row, FILE *out)
{
    char choices[TSR_CHOICES_BYTES];

    (void)fputs(".TP\n\\fB\\-\\-", out);
    write_text(row->name, out);
    (void)fputs("\\fR", out);
    if (row->value != NULL) {
        (void)fputc(' ', out);
        write_styled('I', row->value, out);
    }
    (void)fputc('\n', out);
    write_text(row->help, out);
    (void)fputs(".\n", out);
    if (tsr_option_choices(row->name, choices)[0] != '\0') {
        write_choices(choices, out);
    }
    if (row->preset != NULL) {
        (void)fputs("Default: ", out);
        write_text(row->preset, out);
        (void)fputs(".\n", out);
    }
    if (taken_by_several(row))
        write_takers(row, out);
}

/* Options that `command` alone takes; those of several where it is NULL. */
static void write_options(const tsr_command_row *command, FILE *out)
{
    bool first = true;

    for (size_t i = 0; i < tsr_option_count; i++) {
        const tsr_option_row *row = &tsr_option_rows[i];
        const bool here =
            command != NULL ? row->commands == (unsigned)command->command : taken_by_several(row);
        if (here && first)
            (void)fprintf(out, ".SS Options of %s\n",
                          command != NULL ? command->name : "several commands");
        if (here)
            write_option(row, out);
        first &= !here;
    }
}

static void write_exit_codes(FILE *out)
{
    (void)fputs(".SH EXIT STATUS\n", out);
    for (int code = 0; code <= LAST_EXIT_CODE; code++) {
        bool first = true;
        for (int st = TSR_OK; st <= TSR_ERR_TERMINATED; st++) {
            if (tsr_status_exit_code((tsr_status)st) != code)
                continue;
            if (first)
                (void)fprintf(out, ".TP\n.B %d\n", code);
            else
                (void)fputs("; ", out);
            write_text(tsr_status_text((tsr_status)st), out);
            first = false;
        }
        if (!first)
            (void)fputc('\n', out);
    }
}

static void write_examples(FILE *out)
{
    (void)fputs(".SH EXAMPLES\n.nf\n", out);
    for (size_t i = 0; i < tsr_command_count; i++) {
        write_text(tsr_command_rows[i].example, out);
        (void)fputc('\n', out);
    }
    (void)fputs(".fi\n", out);
}

void tsr_manual_write(FILE *out)
{
    (void)fputs(".TH TESSERA 1 \"" TSR_VERSION_DATE "\" \"tessera " TSR_VERSION
                "\" \"User Commands\"\n.nh\n.ad l\n.SH NAME\n"
                "tessera \\- mixture-of-experts models, every layer in its own precision\n"
                ".SH SYNOPSIS\n"
                ".B tessera\n.I COMMAND\n[\\fIDIR\\fR] [\\fIOPTION\\fR ...]\n.br\n"
                ".B tessera\n.I COMMAND\n.B \\-\\-help\n.br\n"
                ".B tessera \\-\\-version\n",
                out);
    (void)fputs(intro, out);
    write_commands(out);
    (void)fputs(
        ".SH OPTIONS\n"
        "Numbers may have a unit: 32K is 32768, 25.6k is 25600; sizes also 24G and 24GiB.\n",
        out);
    for (size_t i = 0; i < tsr_command_count; i++)
        write_options(&tsr_command_rows[i], out);
    write_options(NULL, out);
    (void)fputs(environment, out);
    write_exit_codes(out);
    (void)fputs(signals, out);
    write_examples(out);
    (void)fputs(files, out);
}
