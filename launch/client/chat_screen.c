/* stdout and stderr may be one terminal, so each is flushed before the other is written. */
#include "launch/client/chat_screen.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char dim[] = "\033[2m";
static const char plain[] = "\033[0m";

tsr_chat_screen tsr_chat_screen_of(bool colour, bool talks)
{
    return (tsr_chat_screen){
        .guard = isatty(STDOUT_FILENO), .asides = talks || isatty(STDERR_FILENO), .dim = colour};
}

/* C0 but for tabs and line ends, DEL, and C1, which is C2 80 to C2 9F in UTF-8. */
static size_t control_at(const char *text)
{
    const unsigned char c = (unsigned char)text[0];
    const unsigned char next = c != '\0' ? (unsigned char)text[1] : 0;

    if (c == 0xc2 && next >= 0x80 && next <= 0x9f)
        return 2;
    return (c < 0x20 && c != '\n' && c != '\t') || c == 0x7f ? 1 : 0;
}

static void write_guarded(const char *text, FILE *out)
{
    while (*text != '\0') {
        const size_t skipped = control_at(text);
        if (skipped == 0)
            (void)fputc(*text++, out);
        else
            text += skipped;
    }
}

static void show(const tsr_chat_screen *screen, const char *text, FILE *out)
{
    if (screen->guard)
        write_guarded(text, out);
    else
        (void)fputs(text, out);
    (void)fflush(out);
}

static void end_line(tsr_chat_screen *screen, FILE *out)
{
    if (screen->midline)
        (void)fputc('\n', out);
    (void)fflush(out);
    screen->midline = false;
}

void tsr_chat_screen_thought(tsr_chat_screen *screen, const char *text)
{
    if (!screen->asides || text[0] == '\0')
        return;
    if (screen->dim)
        (void)fputs(dim, stderr);
    show(screen, text, stderr);
    if (screen->dim)
        (void)fputs(plain, stderr);
    screen->thinking = true;
    screen->midline = text[strlen(text) - 1] != '\n';
}

void tsr_chat_screen_words(tsr_chat_screen *screen, const char *text)
{
    if (text[0] == '\0')
        return;
    if (screen->thinking)
        end_line(screen, stderr);
    screen->thinking = false;
    show(screen, text, stdout);
    screen->midline = text[strlen(text) - 1] != '\n';
}

void tsr_chat_screen_end(tsr_chat_screen *screen)
{
    end_line(screen, screen->thinking ? stderr : stdout);
    screen->thinking = false;
}

void tsr_chat_screen_note(tsr_chat_screen *screen, const char *format, ...)
{
    va_list arguments;

    if (!screen->asides)
        return;
    (void)fflush(stdout);
    (void)fputs(screen->dim ? dim : "", stderr);
    va_start(arguments, format);
    (void)vfprintf(stderr, format, arguments);
    va_end(arguments);
    (void)fputs(screen->dim ? plain : "", stderr);
    (void)fputc('\n', stderr);
}

void tsr_chat_screen_status(tsr_chat_screen *screen, const char *text)
{
    if (!screen->dim)
        return;
    (void)fprintf(stderr, "\r\033[K%s%s%s", text != NULL ? dim : "", text != NULL ? text : "",
                  text != NULL ? plain : "");
}
