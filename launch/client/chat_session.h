/*
 * A conversation with a server: what was said, how answers are sampled, and one answer at a time.
 *
 *   system?  user  assistant  user  assistant  ...      the messages of every request
 */
#ifndef TSR_LAUNCH_CLIENT_CHAT_SESSION_H
#define TSR_LAUNCH_CLIENT_CHAT_SESSION_H

#include "launch/client/api_client.h"
#include "launch/client/chat_screen.h"

enum { TSR_CHAT_FINISH_BYTES = 32 };

/* Of one answer, or of all of them. */
typedef struct tsr_chat_counts {
    int64_t answers;
    int64_t prompt_tokens;
    int64_t output_tokens;
    int64_t first_ns; /* from the question to the first token */
    int64_t rest_ns;  /* from there to the last */
} tsr_chat_counts;

typedef struct tsr_chat_session {
    const tsr_api_server *server;
    tsr_chat_screen *screen;
    json_t *messages; /* array; the system message, where there is one, is the first */
    json_t *settings; /* object: fields of each request */
    tsr_chat_counts all;
    /* the answer under way: */
    tsr_api_call call;
    tsr_chat_counts counts;
    tsr_text words;
    int64_t sent_ns;
    int64_t first_ns; /* when its first token came; 0: none has */
    int64_t last_ns;
    char finish[TSR_CHAT_FINISH_BYTES]; /* as the server says; "" until then */
    bool over;
    tsr_status st;
} tsr_chat_session;

/* Both are borrowed. TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_chat_session_open(const tsr_api_server *server, tsr_chat_screen *screen,
                                              tsr_chat_session *session);

/* NULL or "": none. TSR_ERR_ARG, logged: no UTF-8. TSR_ERR_MEMORY */
TSR_MUST_USE tsr_status tsr_chat_session_set_system(tsr_chat_session *session, const char *text);

/* Forgets all but the system message. */
void tsr_chat_session_clear(tsr_chat_session *session);

/*
 * Asks, and shows the answer as it comes. What was said stays said where a user stops it (SIGINT, and
 * TSR_OK); a question without an answer is forgotten.
 *
 * TSR_ERR_ARG, logged: refused, or no UTF-8; TSR_ERR_TIMEOUT, TSR_ERR_PEER, logged: no answer;
 * TSR_ERR_MEMORY; the status of a signal that ends this process
 */
TSR_MUST_USE tsr_status tsr_chat_session_ask(tsr_chat_session *session, const char *question);

/* Another answer to the last question. TSR_ERR_ARG, logged: there is none. */
TSR_MUST_USE tsr_status tsr_chat_session_ask_again(tsr_chat_session *session);

void tsr_chat_session_close(tsr_chat_session *session);

#endif
