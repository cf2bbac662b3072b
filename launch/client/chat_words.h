/* What a user says to the chat and not to the model: lines that begin with a slash. */
#ifndef TSR_LAUNCH_CLIENT_CHAT_WORDS_H
#define TSR_LAUNCH_CLIENT_CHAT_WORDS_H

#include "launch/client/chat_session.h"

/* Whether a message is one of them. */
bool tsr_chat_is_word(const char *message);

/* Does what it says. What is wrong with it is logged; *ret_end: the chat is to end. TSR_ERR_MEMORY, and
 * of a question that is asked again what tsr_chat_session_ask says. */
TSR_MUST_USE tsr_status tsr_chat_word(tsr_chat_session *session, const char *message,
                                      bool *ret_end);

#endif
