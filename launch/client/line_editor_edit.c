/* By libedit, whose own interface tells a signal from the end of the input. */
#include "launch/client/line_editor.h"

#include "launch/job/signals.h"

#include <errno.h>
#include <histedit.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <wchar.h>

enum { KEPT_LINES = 1000 };

struct tsr_line_editor {
    EditLine *lines;
    History *history;
    const char *prompt;
};

/* The library takes it without const, and only prints it. */
static char *prompt_of(EditLine *lines)
{
    static char text[16];
    const tsr_line_editor *editor = NULL;

    (void)el_get(lines, EL_CLIENTDATA, &editor);
    (void)snprintf(text, sizeof(text), "%s", editor->prompt);
    return text;
}

/* The next character; 0: the input has ended; -1: errno says why. The library's own reads even where a
 * signal came just before, which is then seen with the next key only. What is no character is left out. */
static int read_character(EditLine *lines, wchar_t *ret_character)
{
    mbstate_t state = {0};
    char byte = '\0';

    (void)lines;
    for (;;) {
        if (!tsr_signals_await_input(STDIN_FILENO))
            return -1;
        const ssize_t count = read(STDIN_FILENO, &byte, 1);
        if (count <= 0)
            return (int)count;
        size_t taken = mbrtowc(ret_character, &byte, 1, &state);
        if (taken == (size_t)-1) { /* not what was begun: it may begin another, or be a key */
            state = (mbstate_t){0};
            taken = mbrtowc(ret_character, &byte, 1, &state);
        }
        if (taken <= 1)
            return 1;
        if (taken == (size_t)-1)
            state = (mbstate_t){0};
    }
}

static int set_up(tsr_line_editor *editor)
{
    HistEvent event;

    editor->lines = el_init("tessera", stdin, stdout, stderr);
    editor->history = history_init();
    if (editor->lines == NULL || editor->history == NULL)
        return -1;
    (void)history(editor->history, &event, H_SETSIZE, KEPT_LINES);
    (void)history(editor->history, &event, H_SETUNIQUE, 1);
    (void)el_set(editor->lines, EL_CLIENTDATA, editor);
    (void)el_set(editor->lines, EL_PROMPT, prompt_of);
    (void)el_set(editor->lines, EL_EDITOR, "emacs");
    (void)el_set(editor->lines, EL_SIGNAL, 0); /* SIGINT is told apart by whoever reads */
    (void)el_set(editor->lines, EL_GETCFN, read_character);
    (void)el_set(editor->lines, EL_HIST, history, editor->history);
    (void)el_set(editor->lines, EL_BIND, "^R", "em-inc-search-prev", NULL);
    /* what Ctrl-D is where it was typed before the terminal was the editor's */
    (void)el_set(editor->lines, EL_BIND, "^@", "em-delete-or-list", NULL);
    return 0;
}

tsr_line_editor *tsr_line_editor_open(void)
{
    tsr_line_editor *editor = calloc(1, sizeof(*editor));

    if (editor != NULL && set_up(editor) != 0) {
        tsr_line_editor_close(editor);
        return NULL;
    }
    return editor;
}

tsr_line_end tsr_line_editor_read(tsr_line_editor *editor, const char *prompt, tsr_text *line)
{
    int count = 0;

    editor->prompt = prompt;
    errno = 0;
    const char *read = el_gets(editor->lines, &count);
    if (read == NULL || count <= 0)
        return count < 0 && errno == EINTR ? TSR_LINE_INTERRUPTED : TSR_LINE_OVER;
    size_t bytes = (size_t)count;
    if (read[bytes - 1] == '\n')
        bytes--;
    tsr_text_clear(line);
    return tsr_text_add(line, read, bytes) == TSR_OK ? TSR_LINE_READ : TSR_LINE_NO_MEMORY;
}

void tsr_line_editor_keep(tsr_line_editor *editor, const char *line)
{
    HistEvent event;
    (void)history(editor->history, &event, H_ENTER, line);
}

void tsr_line_editor_close(tsr_line_editor *editor)
{
    if (editor == NULL)
        return;
    if (editor->lines != NULL)
        el_end(editor->lines);
    if (editor->history != NULL)
        history_end(editor->history);
    free(editor);
}
