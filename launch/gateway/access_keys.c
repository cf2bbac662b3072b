/* The time of a comparison tells nothing: every key is compared whole with what was sent, and both
 * are padded to one length. */
#include "launch/gateway/access_keys.h"

#include "runtime/base/log.h"

#include <string.h>
#include <strings.h>

tsr_status tsr_access_keys_open(const tsr_option_list *keys, tsr_access_keys *ret_keys)
{
    tsr_access_keys opened = {.count = keys->count};

    for (int32_t i = 0; i < keys->count; i++) {
        const size_t bytes = strlen(keys->items[i]);
        if (bytes >= TSR_KEY_BYTES) {
            tsr_log(TSR_LOG_ERROR, "--api-key: a key has at most %d bytes", TSR_KEY_BYTES - 1);
            return TSR_ERR_ARG;
        }
        memcpy(opened.keys[i], keys->items[i], bytes);
    }
    *ret_keys = opened;
    return TSR_OK;
}

static int digit_of(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c != '\0' ? strchr(digits, c) : NULL;
    return at != NULL ? (int)(at - digits) : -1;
}

/* Base64 up to what is none; what does not fit is left out. */
static void decode_base64(const char *text, char *to, size_t most)
{
    unsigned bits = 0;
    int held = 0;
    size_t count = 0;

    for (; digit_of(*text) >= 0 && count + 1 < most; text++) {
        bits = bits << 6 | (unsigned)digit_of(*text);
        held += 6;
        if (held < 8)
            continue;
        held -= 8;
        to[count++] = (char)(bits >> held & 0xff);
    }
    to[count] = '\0';
}

static bool is_key(const tsr_access_keys *keys, const char *given)
{
    unsigned char padded[TSR_KEY_BYTES] = {0};
    const size_t bytes = strnlen(given, TSR_KEY_BYTES);
    bool found = false;

    if (bytes == 0 || bytes == TSR_KEY_BYTES)
        return false;
    memcpy(padded, given, bytes);
    for (int32_t i = 0; i < keys->count; i++) {
        unsigned difference = 0;
        for (size_t b = 0; b < TSR_KEY_BYTES; b++)
            difference |= (unsigned)(keys->keys[i][b] ^ padded[b]);
        found |= difference == 0;
    }
    return found;
}

bool tsr_access_keys_allow(const tsr_access_keys *keys, const tsr_http_head *head)
{
    const char *given = head->authorization;
    char basic[2 * TSR_KEY_BYTES];

    if (keys->count == 0)
        return true;
    if (head->api_key != NULL && is_key(keys, head->api_key))
        return true;
    if (given != NULL && strncasecmp(given, "Bearer ", 7) == 0)
        return is_key(keys, given + 7 + strspn(given + 7, " "));
    if (given == NULL || strncasecmp(given, "Basic ", 6) != 0)
        return false;
    decode_base64(given + 6 + strspn(given + 6, " "), basic, sizeof(basic));
    const char *password = strchr(basic, ':');
    return password != NULL && is_key(keys, password + 1);
}
