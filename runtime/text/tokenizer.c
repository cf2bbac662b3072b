/*
 * The stations in the reference's order, each on what the one before has left over:
 *
 *   text -> valid UTF-8 -> added tokens -> NFC -> added tokens -> words -> merges -> ids
 *                          as written             normalised
 *
 * A tokenizer is never written after it is open; what an encoding needs to scribble on is its own.
 */
#include "runtime/text/tokenizer.h"

#include "runtime/base/file.h"
#include "runtime/base/json_file.h"
#include "runtime/text/nfc.h"
#include "runtime/text/tokenizer_file.h"
#include "runtime/text/utf8.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_FILE_BYTES = 128 << 20, MAX_PATH_BYTES = 4096 };

static size_t longest_of(const tsr_vocabulary *vocabulary)
{
    size_t longest = 1;
    for (int32_t id = 0; id < vocabulary->ids; id++) {
        if (vocabulary->tokens[id].present && vocabulary->tokens[id].bytes_count > longest)
            longest = vocabulary->tokens[id].bytes_count;
    }
    return longest;
}

/* Takes over `file`. */
static tsr_status build(const char *name, json_t *file, tsr_problems *problems,
                        tsr_tokenizer **ret_tokenizer)
{
    tsr_tokenizer *tokenizer = calloc(1, sizeof(*tokenizer));
    tsr_status st = TSR_ERR_MEMORY;
    if (tokenizer != NULL)
        st = tsr_tokenizer_file_read(name, file, problems, tokenizer);
    json_decref(file);
    if (st != TSR_OK) {
        tsr_tokenizer_close(tokenizer);
        return st;
    }
    tokenizer->longest_token = longest_of(&tokenizer->vocabulary);
    *ret_tokenizer = tokenizer;
    return TSR_OK;
}

tsr_status tsr_tokenizer_parse(const char *name, const char *bytes, size_t count,
                               tsr_problems *problems, tsr_tokenizer **ret_tokenizer)
{
    json_t *file = NULL;
    const tsr_status st = tsr_json_load_bytes(name, bytes, count, problems, &file);
    return st == TSR_OK ? build(name, file, problems, ret_tokenizer) : st;
}

tsr_status tsr_tokenizer_open(const char *folder, tsr_problems *problems,
                              tsr_tokenizer **ret_tokenizer)
{
    char path[MAX_PATH_BYTES];
    if (tsr_path_join(folder, "tokenizer.json", sizeof(path), path) != TSR_OK) {
        tsr_problems_add(problems, TSR_SEVERITY_ERROR, "%.80s...: the folder's name is too long",
                         folder);
        return TSR_ERR_CHECKPOINT;
    }
    json_t *file = NULL;
    const tsr_status st = tsr_json_load_file(path, MAX_FILE_BYTES, problems, &file);
    return st == TSR_OK ? build(path, file, problems, ret_tokenizer) : st;
}

void tsr_tokenizer_close(tsr_tokenizer *tokenizer)
{
    if (tokenizer == NULL)
        return;
    tsr_vocabulary_close(&tokenizer->vocabulary);
    tsr_merges_close(&tokenizer->merges);
    tsr_split_pattern_close(tokenizer->pattern);
    tsr_added_tokens_close(&tokenizer->raw_added);
    tsr_added_tokens_close(&tokenizer->normalized_added);
    free(tokenizer);
}

int32_t tsr_tokenizer_ids(const tsr_tokenizer *tokenizer)
{
    return tokenizer->vocabulary.ids;
}

size_t tsr_tokenizer_longest_token(const tsr_tokenizer *tokenizer)
{
    return tokenizer->longest_token;
}

void tsr_ids_close(tsr_ids *ids)
{
    free(ids->ids);
    *ids = (tsr_ids){0};
}

bool tsr_tokenizer_bytes(const tsr_tokenizer *tokenizer, int32_t id, const char **ret_bytes,
                         size_t *ret_count, bool *ret_special)
{
    const tsr_vocabulary *vocabulary = &tokenizer->vocabulary;
    if (id < 0 || id >= vocabulary->ids || !vocabulary->tokens[id].present)
        return false;
    const tsr_token *token = &vocabulary->tokens[id];
    *ret_bytes = vocabulary->bytes.bytes + token->bytes;
    *ret_count = token->bytes_count;
    *ret_special = token->special;
    return true;
}

int32_t tsr_tokenizer_id(const tsr_tokenizer *tokenizer, const char *content)
{
    return tsr_vocabulary_find(&tokenizer->vocabulary, content, strlen(content));
}

/* One text on its way to ids. */
typedef struct encoding {
    const tsr_tokenizer *tokenizer;
    tsr_ids *ids;
    bool plain;
    tsr_splitter *splitter;
    tsr_bpe_scratch bpe;
    tsr_text normal;   /* a stretch between added tokens, normalised */
    tsr_text spelling; /* of a word */
} encoding;

typedef tsr_status (*stretch_step)(encoding *e, const char *text, size_t count);

/* Gives the ids of the added tokens in `text`, and what lies between them to `between`. */
static tsr_status around(encoding *e, const tsr_added_tokens *added, const char *text, size_t count,
                         stretch_step between)
{
    tsr_status st = TSR_OK;
    size_t given = 0;
    size_t at = 0;
    size_t first = 0;
    const tsr_added_token *token = tsr_added_tokens_find(added, text, count, at, &first);
    while (st == TSR_OK && token != NULL) {
        at = first + token->count;
        /* a spelling taken as text still uses its bytes up: none begins inside it */
        if (!(e->plain && token->special)) {
            if (first > given)
                st = between(e, text + given, first - given);
            if (st == TSR_OK)
                st = tsr_ids_add(e->ids, token->id);
            given = at;
        }
        token = tsr_added_tokens_find(added, text, count, at, &first);
    }
    if (st == TSR_OK && given < count)
        st = between(e, text + given, count - given);
    return st;
}

static tsr_status add_word(encoding *e, const char *word, size_t count)
{
    const tsr_tokenizer *t = e->tokenizer;
    /* merging takes longer than the rest by far, and one word may be all of the text */
    if (e->ids->most > 0 && count / t->longest_token > e->ids->most - e->ids->count) {
        e->ids->full = true;
        return TSR_ERR_CAPACITY;
    }
    if (t->whole_words) {
        tsr_text_clear(&e->spelling);
        const tsr_status st = tsr_spell(word, count, &e->spelling);
        if (st != TSR_OK)
            return st;
        const int32_t id =
            tsr_vocabulary_find(&t->vocabulary, e->spelling.bytes, e->spelling.count);
        if (id >= 0 && !t->vocabulary.tokens[id].added)
            return tsr_ids_add(e->ids, id);
    }
    return tsr_bpe_add(&t->merges, word, count, &e->bpe, e->ids);
}

static tsr_status add_words(encoding *e, const char *text, size_t count)
{
    tsr_splitter_begin(e->splitter, text, count);
    const char *word = NULL;
    size_t bytes = 0;
    tsr_status st = tsr_splitter_next(e->splitter, &word, &bytes);
    while (st == TSR_OK && bytes > 0) {
        st = add_word(e, word, bytes);
        if (st == TSR_OK)
            st = tsr_splitter_next(e->splitter, &word, &bytes);
    }
    return st;
}

static tsr_status add_stretch(encoding *e, const char *text, size_t count)
{
    const tsr_tokenizer *t = e->tokenizer;
    if (!t->nfc)
        return around(e, &t->normalized_added, text, count, add_words);

    tsr_text_clear(&e->normal);
    const tsr_status st = tsr_nfc_add(text, count, &e->normal);
    if (st != TSR_OK)
        return st;
    return around(e, &t->normalized_added, e->normal.bytes, e->normal.count, add_words);
}

tsr_status tsr_tokenizer_encode(const tsr_tokenizer *tokenizer, const char *text, size_t count,
                                bool plain, tsr_ids *ids)
{
    encoding e = {.tokenizer = tokenizer, .ids = ids, .plain = plain};
    tsr_text repaired = {0};
    tsr_status st = tsr_splitter_open(tokenizer->pattern, &e.splitter);
    if (st == TSR_OK && tsr_utf8_valid_prefix(text, count) < count) {
        st = tsr_utf8_repair(text, count, &repaired);
        text = repaired.bytes;
        count = repaired.count;
    }
    if (st == TSR_OK)
        st = around(&e, &tokenizer->raw_added, text, count, add_stretch);
    tsr_splitter_close(e.splitter);
    tsr_bpe_scratch_close(&e.bpe);
    tsr_text_close(&e.normal);
    tsr_text_close(&e.spelling);
    tsr_text_close(&repaired);
    return st;
}

static tsr_status add_ids(tsr_ids *ids, const int32_t *more, size_t count)
{
    tsr_status st = TSR_OK;
    for (size_t i = 0; i < count && st == TSR_OK; i++)
        st = tsr_ids_add(ids, more[i]);
    return st;
}

tsr_status tsr_tokenizer_encode_alone(const tsr_tokenizer *tokenizer, const char *text,
                                      size_t count, tsr_ids *ids)
{
    const tsr_surround *s = &tokenizer->surround;
    tsr_status st = add_ids(ids, s->before, s->before_count);
    if (st == TSR_OK)
        st = tsr_tokenizer_encode(tokenizer, text, count, false, ids);
    return st == TSR_OK ? add_ids(ids, s->after, s->after_count) : st;
}
