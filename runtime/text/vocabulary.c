/* All spellings in one text and all bytes in another, tokens holding offsets: 150,000 tokens are a
 * few allocations. Bytes are unspelled once, here, so that a token on its way out is a copy. */
#include "runtime/text/vocabulary.h"

#include "runtime/text/utf8.h"

#include <stdlib.h>
#include <string.h>

/* Bytes that are printable in Latin-1 stand for themselves; the other 68 follow from U+0100 on. */
static bool is_itself(uint32_t byte)
{
    return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

/* The character that spells a byte. */
static uint32_t character_of(uint32_t byte)
{
    if (is_itself(byte))
        return byte;
    if (byte <= 0x20)
        return 0x100 + byte;
    return byte == 0xad ? 0x143 : 0x121 + (byte - 0x7f);
}

/* The byte a character spells, or -1. */
static int32_t byte_of(uint32_t character)
{
    if (character < 0x100)
        return is_itself(character) ? (int32_t)character : -1;
    if (character <= 0x120)
        return (int32_t)character - 0x100;
    if (character <= 0x142)
        return (int32_t)character - 0x121 + 0x7f;
    return character == 0x143 ? 0xad : -1;
}

tsr_status tsr_spell(const char *bytes, size_t count, tsr_text *out)
{
    tsr_status st = TSR_OK;
    for (size_t i = 0; st == TSR_OK && i < count; i++) {
        const uint32_t code = character_of((unsigned char)bytes[i]);
        const char two[] = {(char)(0xc0 | code >> 6), (char)(0x80 | (code & 0x3f))};
        const char one[] = {(char)code};
        st = code < 0x80 ? tsr_text_add(out, one, 1) : tsr_text_add(out, two, 2);
    }
    return st;
}

/* Appends the bytes a spelling stands for. */
static tsr_status unspell(const char *spelling, size_t count, tsr_text *out)
{
    const size_t before = out->count;
    for (size_t at = 0; at < count;) {
        tsr_utf8_kind kind;
        const size_t step = tsr_utf8_step(spelling + at, count - at, &kind);
        const int32_t byte =
            kind == TSR_UTF8_WHOLE ? byte_of(tsr_utf8_decode(spelling + at, step)) : -1;
        if (byte < 0) {
            out->count = before;
            return tsr_text_add(out, spelling, count);
        }
        const char one[] = {(char)byte};
        const tsr_status st = tsr_text_add(out, one, 1);
        if (st != TSR_OK)
            return st;
        at += step;
    }
    return TSR_OK;
}

tsr_status tsr_vocabulary_open(tsr_vocabulary *vocabulary, size_t count, int32_t ids)
{
    size_t slots = 16;
    while (slots < count * 2)
        slots *= 2;
    vocabulary->tokens = calloc(ids > 0 ? (size_t)ids : 1, sizeof(*vocabulary->tokens));
    vocabulary->slots = malloc(slots * sizeof(*vocabulary->slots));
    if (vocabulary->tokens == NULL || vocabulary->slots == NULL)
        return TSR_ERR_MEMORY;
    vocabulary->ids = ids;
    vocabulary->slot_count = slots;
    for (size_t i = 0; i < slots; i++)
        vocabulary->slots[i] = -1;
    return TSR_OK;
}

void tsr_vocabulary_close(tsr_vocabulary *vocabulary)
{
    free(vocabulary->tokens);
    free(vocabulary->slots);
    tsr_text_close(&vocabulary->spellings);
    tsr_text_close(&vocabulary->bytes);
    *vocabulary = (tsr_vocabulary){0};
}

static uint64_t hash(const char *bytes, size_t count)
{
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a */
    for (size_t i = 0; i < count; i++)
        h = (h ^ (unsigned char)bytes[i]) * 0x100000001b3u;
    return h ^ h >> 32;
}

/* The slot that holds a spelling, or the free one where it would stand. */
static size_t slot_of(const tsr_vocabulary *vocabulary, const char *spelling, size_t count)
{
    const size_t mask = vocabulary->slot_count - 1;
    for (size_t slot = (size_t)hash(spelling, count) & mask;; slot = (slot + 1) & mask) {
        const int32_t id = vocabulary->slots[slot];
        if (id < 0)
            return slot;
        const tsr_token *token = &vocabulary->tokens[id];
        if (token->spelling_count == count &&
            memcmp(vocabulary->spellings.bytes + token->spelling, spelling, count) == 0)
            return slot;
    }
}

tsr_status tsr_vocabulary_add(tsr_vocabulary *vocabulary, int32_t id, const char *spelling,
                              size_t count)
{
    tsr_token *token = &vocabulary->tokens[id];
    const size_t slot = slot_of(vocabulary, spelling, count);
    *token = (tsr_token){
        .spelling = vocabulary->spellings.count,
        .bytes = vocabulary->bytes.count,
        .spelling_count = (uint32_t)count,
    };
    tsr_status st = tsr_text_add(&vocabulary->spellings, spelling, count);
    if (st == TSR_OK)
        st = unspell(spelling, count, &vocabulary->bytes);
    if (st != TSR_OK)
        return st;

    token->bytes_count = (uint32_t)(vocabulary->bytes.count - token->bytes);
    token->present = true;
    vocabulary->slots[slot] = id;
    vocabulary->count++;
    return TSR_OK;
}

int32_t tsr_vocabulary_find(const tsr_vocabulary *vocabulary, const char *spelling, size_t count)
{
    return vocabulary->slots[slot_of(vocabulary, spelling, count)];
}
