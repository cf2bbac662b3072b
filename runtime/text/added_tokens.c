/*
 * Sorted, and walked byte by byte: tokens that agree so far are one range, which narrows.
 *
 *   sorted          <think>  <|endoftext|>  <|im_end|>  <|im_start|>
 *   after "<|"               '-------------------------------------'
 *   after "<|im_"                           '----------------------'
 *   after "<|im_s"                                      '----------'
 *
 * A few hundred tokens need no tree; most places of a text fail at their first byte.
 */
#include "runtime/text/added_tokens.h"

#include <stdlib.h>
#include <string.h>

tsr_status tsr_added_tokens_add(tsr_added_tokens *added, const char *content, size_t count,
                                int32_t id, bool special)
{
    if (added->count == added->capacity) {
        const size_t capacity = added->capacity ? added->capacity * 2 : 16;
        tsr_added_token *grown = realloc(added->tokens, capacity * sizeof(*grown));
        if (grown == NULL)
            return TSR_ERR_MEMORY;
        added->tokens = grown;
        added->capacity = capacity;
    }
    char *copy = malloc(count);
    if (copy == NULL)
        return TSR_ERR_MEMORY;
    memcpy(copy, content, count);
    added->tokens[added->count++] =
        (tsr_added_token){.content = copy, .count = count, .id = id, .special = special};
    return TSR_OK;
}

static int compare_contents(const void *left, const void *right)
{
    const tsr_added_token *a = left;
    const tsr_added_token *b = right;
    const size_t shared = a->count < b->count ? a->count : b->count;
    const int order = memcmp(a->content, b->content, shared);
    if (order != 0)
        return order;
    return (a->count > b->count) - (a->count < b->count);
}

bool tsr_added_tokens_seal(tsr_added_tokens *added)
{
    if (added->count > 1)
        qsort(added->tokens, added->count, sizeof(*added->tokens), compare_contents);
    for (size_t i = 0; i < added->count; i++)
        added->first_with[(unsigned char)added->tokens[i].content[0] + 1]++;
    for (size_t byte = 0; byte < 256; byte++)
        added->first_with[byte + 1] += added->first_with[byte];
    for (size_t i = 1; i < added->count; i++) {
        if (compare_contents(&added->tokens[i - 1], &added->tokens[i]) == 0)
            return false;
    }
    return true;
}

/* The first of the tokens [low, high), which agree before `depth`, whose byte there is at least
 * `byte`; tokens that end before it come first. */
static size_t lower_bound(const tsr_added_tokens *added, size_t low, size_t high, size_t depth,
                          unsigned byte)
{
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        const tsr_added_token *token = &added->tokens[middle];
        if (token->count <= depth || (unsigned char)token->content[depth] < byte)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The longest token `text` begins with: the range of tokens that agree narrows byte by byte. */
static const tsr_added_token *longest_at(const tsr_added_tokens *added, const char *text,
                                         size_t count)
{
    const tsr_added_token *longest = NULL;
    size_t low = added->first_with[(unsigned char)text[0]];
    size_t high = added->first_with[(unsigned char)text[0] + 1];
    for (size_t depth = 1; low < high; depth++) {
        if (added->tokens[low].count == depth)
            longest = &added->tokens[low];
        if (depth == count)
            break;
        const unsigned byte = (unsigned char)text[depth];
        low = lower_bound(added, low, high, depth, byte);
        high = lower_bound(added, low, high, depth, byte + 1);
    }
    return longest;
}

const tsr_added_token *tsr_added_tokens_find(const tsr_added_tokens *added, const char *text,
                                             size_t count, size_t from, size_t *ret_first)
{
    if (added->count == 0)
        return NULL;
    for (size_t at = from; at < count; at++) {
        const unsigned char byte = (unsigned char)text[at];
        if (added->first_with[byte] == added->first_with[byte + 1])
            continue;
        const tsr_added_token *token = longest_at(added, text + at, count - at);
        if (token != NULL) {
            *ret_first = at;
            return token;
        }
    }
    return NULL;
}

void tsr_added_tokens_close(tsr_added_tokens *added)
{
    for (size_t i = 0; i < added->count; i++)
        free(added->tokens[i].content);
    free(added->tokens);
    *added = (tsr_added_tokens){0};
}
