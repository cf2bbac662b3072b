/*
 * The script knows all names by itself: pressing TAB starts no program. What follows an option is
 * one of its choices, a file, a folder, or nothing that can be guessed; it needs no functions of
 * the package bash-completion.
 */
#include "launch/cli/shell_completion.h"

#include "launch/cli/command_table.h"
#include "launch/cli/option_table.h"

#include <stdbool.h>
#include <string.h>

/* What can stand behind an option. */
typedef enum value_kind {
    VALUE_NONE,
    VALUE_CHOICE,
    VALUE_FILE,
    VALUE_FOLDER,
    VALUE_FREE
} value_kind;

static const char head[] =
    "# bash completion for tessera: `tessera completion` wrote it.\n"
    "_tessera()\n"
    "{\n"
    "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}\n"
    "    COMPREPLY=()\n"
    "    # bash makes three words of --option=value\n"
    "    if [[ $word == = ]]; then\n"
    "        word=\n"
    "    elif [[ $before == = ]]; then\n"
    "        before=${COMP_WORDS[COMP_CWORD - 2]}\n"
    "    fi\n"
    "    if ((COMP_CWORD == 1)); then\n";

static const char tail[] =
    "    *) return ;;\n"
    "    esac\n"
    "    if [[ $word == -* || $argument == no ]]; then\n"
    "        words=$options\n"
    "    fi\n"
    "    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$word\")\n"
    "    if [[ $word != -* && $argument == yes ]]; then\n"
    "        _tessera_paths -d \"$word\"\n"
    "    fi\n"
    "}\n"
    "# Adds files (-f) or folders (-d); readline quotes them, and puts no blank behind a folder.\n"
    "_tessera_paths()\n"
    "{\n"
    "    compopt -o filenames 2>/dev/null\n"
    "    local path\n"
    "    while IFS= read -r path; do\n"
    "        COMPREPLY+=(\"$path\")\n"
    "    done < <(compgen \"$1\" -- \"$2\")\n"
    "}\n"
    "complete -F _tessera tessera\n";

static value_kind value_of(const tsr_option_row *row)
{
    char choices[TSR_CHOICES_BYTES];

    if (row->kind == TSR_OPTION_FLAG)
        return VALUE_NONE;
    if (tsr_option_choices(row->name, choices)[0] != '\0')
        return VALUE_CHOICE;
    if (row->value != NULL && strcmp(row->value, "FILE") == 0)
        return VALUE_FILE;
    return row->value != NULL && strcmp(row->value, "DIR") == 0 ? VALUE_FOLDER : VALUE_FREE;
}

/* A name that rows of different commands share. */
static bool stood_before(size_t at)
{
    for (size_t i = 0; i < at; i++) {
        if (strcmp(tsr_option_rows[i].name, tsr_option_rows[at].name) == 0)
            return true;
    }
    return false;
}

/* "a|b" as "a b", but without folders, which are looked up. */
static void write_words(const char *choices, FILE *out)
{
    for (const char *at = choices; *at;) {
        const size_t bytes = strcspn(at, "|");
        if (bytes != 3 || strncmp(at, "DIR", bytes) != 0)
            (void)fprintf(out, " %.*s", (int)bytes, at);
        at += bytes + (at[bytes] == '|');
    }
}

static void write_choices(FILE *out)
{
    char choices[TSR_CHOICES_BYTES];

    for (size_t i = 0; i < tsr_option_count; i++) {
        const tsr_option_row *row = &tsr_option_rows[i];
        if (value_of(row) != VALUE_CHOICE || stood_before(i))
            continue;
        (void)fprintf(out, "    --%s)\n        mapfile -t COMPREPLY < <(compgen -W '", row->name);
        write_words(tsr_option_choices(row->name, choices), out);
        (void)fputs("' -- \"$word\")\n        return\n        ;;\n", out);
    }
}

/* One branch for all options whose value is of this kind. */
static void write_branch(value_kind kind, const char *action, FILE *out)
{
    const char *between = "    --";

    for (size_t i = 0; i < tsr_option_count; i++) {
        if (value_of(&tsr_option_rows[i]) != kind || stood_before(i))
            continue;
        (void)fprintf(out, "%s%s", between, tsr_option_rows[i].name);
        between = " | --";
    }
    (void)fprintf(out, ")\n%s        return\n        ;;\n", action);
}

static void write_command(const tsr_command_row *command, FILE *out)
{
    const char *words = command->argument != NULL ? command->argument : "";

    (void)fprintf(out, "    %s)\n        argument=%s words='", command->name,
                  command->argument != NULL ? "yes" : "no");
    write_words(words, out);
    (void)fputs("'\n        options='", out);
    for (size_t i = 0; i < tsr_option_count; i++) {
        if (tsr_option_rows[i].commands & command->command)
            (void)fprintf(out, " --%s", tsr_option_rows[i].name);
    }
    (void)fputs("'\n        ;;\n", out);
}

void tsr_shell_completion_write(FILE *out)
{
    (void)fputs(head, out);
    (void)fputs("        mapfile -t COMPREPLY < <(compgen -W '", out);
    for (size_t i = 0; i < tsr_command_count; i++)
        (void)fprintf(out, "%s ", tsr_command_rows[i].name);
    for (size_t i = 0; i < tsr_printed_count; i++)
        (void)fprintf(out, "%s ", tsr_printed_rows[i].word);
    (void)fputs("' -- \"$word\")\n        return\n    fi\n    case $before in\n", out);
    write_choices(out);
    write_branch(VALUE_FILE, "        _tessera_paths -f \"$word\"\n", out);
    write_branch(VALUE_FOLDER, "        _tessera_paths -d \"$word\"\n", out);
    write_branch(VALUE_FREE, "", out);
    (void)fputs("    esac\n    local argument words options\n    case ${COMP_WORDS[1]} in\n", out);
    for (size_t i = 0; i < tsr_command_count; i++)
        write_command(&tsr_command_rows[i], out);
    (void)fputs(tail, out);
}
