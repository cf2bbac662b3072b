/* Who may ask: the keys of --api-key. */
#ifndef TSR_LAUNCH_GATEWAY_ACCESS_KEYS_H
#define TSR_LAUNCH_GATEWAY_ACCESS_KEYS_H

#include "launch/cli/config.h"
#include "launch/http/http_head.h"

enum { TSR_KEY_BYTES = 256 };

/* Keys behind zero bytes, all of one length, so that comparing takes one time whatever they are. */
typedef struct tsr_access_keys {
    unsigned char keys[TSR_MAX_LISTED][TSR_KEY_BYTES]; /* [count] */
    int32_t count;                                     /* 0: everybody may */
} tsr_access_keys;

/* TSR_ERR_ARG, logged: a key is too long. */
TSR_MUST_USE tsr_status tsr_access_keys_open(const tsr_option_list *keys,
                                             tsr_access_keys *ret_keys);

/* "Authorization: Bearer KEY", "x-api-key: KEY", or the password of Basic, which browsers ask for. */
bool tsr_access_keys_allow(const tsr_access_keys *keys, const tsr_http_head *head);

#endif
