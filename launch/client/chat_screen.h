/*
 * What a chat shows, and where:
 *
 *   stdout   answers
 *   stderr   thoughts and figures, where a user sees them; they are dim on a terminal
 *
 * A model's text goes to a terminal without its control characters: what they would do there is not
 * the model's to say.
 */
#ifndef TSR_LAUNCH_CLIENT_CHAT_SCREEN_H
#define TSR_LAUNCH_CLIENT_CHAT_SCREEN_H

#include <stdbool.h>
#include <stddef.h>

typedef struct tsr_chat_screen {
    bool guard;    /* stdout is a terminal */
    bool asides;   /* thoughts and figures are shown */
    bool dim;      /* in colour */
    bool thinking; /* the last that was shown is a thought */
    bool midline;  /* what was shown has not ended its line */
} tsr_chat_screen;

/* `colour` as tsr_launch_info has it of stderr; `talks`: a user is there to read. */
tsr_chat_screen tsr_chat_screen_of(bool colour, bool talks);

void tsr_chat_screen_thought(tsr_chat_screen *screen, const char *text);
void tsr_chat_screen_words(tsr_chat_screen *screen, const char *text);

/* Ends the line that an answer has left open. */
void tsr_chat_screen_end(tsr_chat_screen *screen);

/* A line of figures or notes. */
__attribute__((format(printf, 2, 3))) void tsr_chat_screen_note(tsr_chat_screen *screen,
                                                                const char *format, ...);

/* A line that rewrites itself; NULL removes it. */
void tsr_chat_screen_status(tsr_chat_screen *screen, const char *text);

#endif
