/* A build without libedit: lines are read as the terminal gives them. */
#include "launch/client/line_editor.h"

#include <stddef.h>

tsr_line_editor *tsr_line_editor_open(void)
{
    return NULL;
}

tsr_line_end tsr_line_editor_read(tsr_line_editor *editor, const char *prompt, tsr_text *line)
{
    (void)editor;
    (void)prompt;
    (void)line;
    return TSR_LINE_OVER;
}

void tsr_line_editor_keep(tsr_line_editor *editor, const char *line)
{
    (void)editor;
    (void)line;
}

void tsr_line_editor_close(tsr_line_editor *editor)
{
    (void)editor;
}
