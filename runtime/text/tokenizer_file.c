/* Every switch of the file that would change an id is read or refused by name. Ids of added tokens
 * are those that the reference would give by their place, and the file must say the same. */
#include "runtime/text/tokenizer_file.h"

#include "runtime/text/nfc.h"
#include "runtime/text/tokenizer_fields.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Ids may leave holes, within reason: the table of tokens has a row for each. */
enum { HOLES = 65536 };

/* What ByteLevel splits by when it is told to do so itself. */
static const char byte_level_pattern[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

typedef struct reader {
    const char *path;
    tsr_problems *problems;
    tsr_tokenizer *tokenizer;
} reader;

__attribute__((format(printf, 2, 3))) static tsr_status refuse_tokenizer(const reader *r,
                                                                         const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    tsr_problems_add(r->problems, TSR_SEVERITY_ERROR, "%s: %s", r->path, text);
    return TSR_ERR_CHECKPOINT;
}

/* The field as a word for messages: its text, or what kind of value it is. */
static const char *shown(const json_t *value)
{
    static const char *const kinds[] = {"an object", "an array", "text",  "an integer",
                                        "a number",  "true",     "false", "null"};
    if (value == NULL)
        return "missing";
    return json_is_string(value) ? json_string_value(value) : kinds[json_typeof(value)];
}

static bool is_type(const json_t *object, const char *type)
{
    const char *found = json_string_value(json_object_get(object, "type"));
    return found != NULL && strcmp(found, type) == 0;
}

static bool is_absent(const json_t *value)
{
    return value == NULL || json_is_null(value);
}

static tsr_status check_model(const reader *r, const json_t *model)
{
    static const char *const unserved[] = {"dropout", "unk_token", "continuing_subword_prefix",
                                           "end_of_word_suffix"};
    static const char *const switches[] = {"byte_fallback", "ignore_merges"};
    if (!is_type(model, "BPE"))
        return refuse_tokenizer(r, "model.type is %s; only BPE is served",
                                shown(json_object_get(model, "type")));
    for (size_t i = 0; i < sizeof(unserved) / sizeof(unserved[0]); i++) {
        const json_t *value = json_object_get(model, unserved[i]);
        const bool empty = json_is_string(value) && json_string_length(value) == 0;
        if (!is_absent(value) && !empty)
            return refuse_tokenizer(r, "model.%s is set, which is not served", unserved[i]);
    }
    for (size_t i = 0; i < sizeof(switches) / sizeof(switches[0]); i++) {
        const json_t *value = json_object_get(model, switches[i]);
        if (!is_absent(value) && !json_is_boolean(value))
            return refuse_tokenizer(r, "model.%s is %s, not true or false", switches[i],
                                    shown(value));
    }
    if (json_is_true(json_object_get(model, "byte_fallback")))
        return refuse_tokenizer(r, "model.byte_fallback is true, which is not served");
    if (!json_is_object(json_object_get(model, "vocab")))
        return refuse_tokenizer(r, "model.vocab is not an object");
    if (!json_is_array(json_object_get(model, "merges")))
        return refuse_tokenizer(r, "model.merges is not an array");
    return TSR_OK;
}

/* Opens the vocabulary with room for the ids of the file. */
static tsr_status size_vocabulary(const reader *r, json_t *vocab, const json_t *added)
{
    const size_t count = json_object_size(vocab) + json_array_size(added);
    if (count > TSR_MAX_TOKENS)
        return refuse_tokenizer(r, "%zu tokens, more than the %d that are served", count,
                                TSR_MAX_TOKENS);

    const json_int_t limit = 2 * (json_int_t)count + HOLES;
    json_int_t highest = -1;
    const char *spelling = NULL;
    json_t *value = NULL;
    json_object_foreach(vocab, spelling, value)
    {
        const json_int_t id = json_integer_value(value);
        if (!json_is_integer(value) || id < 0 || id >= limit)
            return refuse_tokenizer(r, "model.vocab: the id of %.80s is not a number below %lld",
                                    spelling, (long long)limit);
        highest = id > highest ? id : highest;
    }
    size_t i = 0;
    json_array_foreach(added, i, value)
    {
        const json_t *field = json_object_get(value, "id");
        const json_int_t id = json_integer_value(field);
        if (!json_is_integer(field) || id < 0 || id >= limit)
            return refuse_tokenizer(r, "added_tokens[%zu].id is not a number below %lld", i,
                                    (long long)limit);
        highest = id > highest ? id : highest;
    }
    return tsr_vocabulary_open(&r->tokenizer->vocabulary, count, (int32_t)highest + 1);
}

static tsr_status read_vocab(const reader *r, json_t *vocab)
{
    tsr_vocabulary *vocabulary = &r->tokenizer->vocabulary;
    const char *spelling = NULL;
    json_t *value = NULL;
    tsr_status st = TSR_OK;
    json_object_foreach(vocab, spelling, value)
    {
        const int32_t id = (int32_t)json_integer_value(value);
        if (vocabulary->tokens[id].present)
            return refuse_tokenizer(r, "model.vocab: id %d belongs to %.80s and to another token",
                                    (int)id, spelling);
        st = tsr_vocabulary_add(vocabulary, id, spelling, strlen(spelling));
        if (st != TSR_OK)
            return st;
    }
    tsr_text spelled = {0};
    for (int byte = 0; st == TSR_OK && byte < 256; byte++) {
        const char one[] = {(char)byte};
        tsr_text_clear(&spelled);
        st = tsr_spell(one, 1, &spelled);
        if (st != TSR_OK)
            break;
        const int32_t id = tsr_vocabulary_find(vocabulary, spelled.bytes, spelled.count);
        if (id < 0)
            st = refuse_tokenizer(r, "model.vocab has no token for byte %d, spelled %s", byte,
                                  spelled.bytes);
        r->tokenizer->merges.byte_ids[byte] = id;
    }
    tsr_text_close(&spelled);
    return st;
}

/* Cuts "left right" or ["left", "right"] in two; false when it is neither. */
static bool merge_parts(const json_t *line, const char *parts[2], size_t counts[2])
{
    if (json_is_array(line)) {
        if (json_array_size(line) != 2)
            return false;
        for (size_t i = 0; i < 2; i++) {
            const json_t *part = json_array_get(line, i);
            parts[i] = json_string_value(part);
            counts[i] = json_string_length(part);
        }
        return parts[0] != NULL && parts[1] != NULL;
    }
    const char *text = json_string_value(line);
    const char *space = text != NULL ? strchr(text, ' ') : NULL;
    if (space == NULL || strchr(space + 1, ' ') != NULL)
        return false;
    parts[0] = text;
    counts[0] = (size_t)(space - text);
    parts[1] = space + 1;
    counts[1] = json_string_length(line) - counts[0] - 1;
    return true;
}

static tsr_status read_merge(const reader *r, const json_t *line, size_t rank, tsr_text *joined)
{
    const tsr_vocabulary *vocabulary = &r->tokenizer->vocabulary;
    const char *parts[2] = {NULL, NULL};
    size_t counts[2] = {0, 0};
    if (!merge_parts(line, parts, counts))
        return refuse_tokenizer(r, "model.merges[%zu] is not a pair", rank);

    tsr_text_clear(joined);
    tsr_status st = tsr_text_add(joined, parts[0], counts[0]);
    if (st == TSR_OK)
        st = tsr_text_add(joined, parts[1], counts[1]);
    if (st != TSR_OK)
        return st;

    const tsr_merge merge = {
        .left = tsr_vocabulary_find(vocabulary, parts[0], counts[0]),
        .right = tsr_vocabulary_find(vocabulary, parts[1], counts[1]),
        .rank = (int32_t)rank,
        .into = tsr_vocabulary_find(vocabulary, joined->bytes, joined->count),
    };
    if (merge.left < 0 || merge.right < 0 || merge.into < 0)
        return refuse_tokenizer(
            r, "model.merges[%zu]: a part of %.80s, or the whole, is not in model.vocab", rank,
            joined->bytes);
    tsr_merges_add(&r->tokenizer->merges, &merge);
    return TSR_OK;
}

static tsr_status read_merges(const reader *r, const json_t *merges)
{
    const size_t count = json_array_size(merges);
    if (count > TSR_MAX_TOKENS)
        return refuse_tokenizer(r, "%zu merges, more than the %d that are served", count,
                                TSR_MAX_TOKENS);

    tsr_text joined = {0};
    tsr_status st = tsr_merges_open(&r->tokenizer->merges, count);
    for (size_t i = 0; st == TSR_OK && i < count; i++)
        st = read_merge(r, json_array_get(merges, i), i, &joined);
    tsr_text_close(&joined);
    return st;
}

/* The id the reference gives a new token, whatever the file says. */
static int32_t next_id(int32_t vocab_count, int32_t highest_added)
{
    return highest_added >= vocab_count ? highest_added + 1 : vocab_count;
}

static tsr_status check_added(const reader *r, const json_t *token, size_t i)
{
    static const char *const flags[] = {"single_word", "lstrip", "rstrip", "normalized", "special"};
    const json_t *content = json_object_get(token, "content");
    if (!json_is_string(content) || json_string_length(content) == 0)
        return refuse_tokenizer(r, "added_tokens[%zu].content is not a text", i);
    for (size_t f = 0; f < sizeof(flags) / sizeof(flags[0]); f++) {
        const json_t *flag = json_object_get(token, flags[f]);
        if (!json_is_boolean(flag))
            return refuse_tokenizer(r, "added_tokens[%zu].%s is %s, not true or false", i, flags[f],
                                    shown(flag));
        if (f < 3 && json_is_true(flag))
            return refuse_tokenizer(r, "added token %.80s: %s is true, which is not served",
                                    json_string_value(content), flags[f]);
    }
    return TSR_OK;
}

/* To the tokens of the raw text, or in normal form to those of the normalised. */
static tsr_status place_added(const reader *r, const json_t *token, int32_t id)
{
    tsr_tokenizer *t = r->tokenizer;
    const json_t *content = json_object_get(token, "content");
    const char *bytes = json_string_value(content);
    const size_t count = json_string_length(content);
    const bool special = json_is_true(json_object_get(token, "special"));
    if (!json_is_true(json_object_get(token, "normalized")))
        return tsr_added_tokens_add(&t->raw_added, bytes, count, id, special);

    tsr_text normal = {0};
    tsr_status st =
        t->nfc ? tsr_nfc_add(bytes, count, &normal) : tsr_text_add(&normal, bytes, count);
    if (st == TSR_OK)
        st = tsr_added_tokens_add(&t->normalized_added, normal.bytes, normal.count, id, special);
    tsr_text_close(&normal);
    return st;
}

static tsr_status read_added_token(const reader *r, const json_t *token, size_t i, int32_t *next)
{
    tsr_vocabulary *vocabulary = &r->tokenizer->vocabulary;
    tsr_status st = check_added(r, token, i);
    if (st != TSR_OK)
        return st;

    const json_t *content = json_object_get(token, "content");
    const char *spelling = json_string_value(content);
    const size_t count = json_string_length(content);
    const int32_t declared = (int32_t)json_integer_value(json_object_get(token, "id"));
    int32_t id = tsr_vocabulary_find(vocabulary, spelling, count);
    if (id < 0) {
        id = *next;
        if (id == declared && vocabulary->tokens[id].present)
            return refuse_tokenizer(r, "added token %.80s: id %d belongs to another token",
                                    spelling, (int)id);
        if (id == declared) {
            st = tsr_vocabulary_add(vocabulary, id, spelling, count);
            vocabulary->tokens[id].added = true;
        }
    }
    if (id != declared)
        return refuse_tokenizer(r,
                                "added token %.80s: id %d is declared, but its place gives it %d",
                                spelling, (int)declared, (int)id);
    *next = id >= *next ? id + 1 : *next;
    if (json_is_true(json_object_get(token, "special")))
        vocabulary->tokens[id].special = true;
    return st == TSR_OK ? place_added(r, token, id) : st;
}

static tsr_status read_added(const reader *r, const json_t *added)
{
    tsr_tokenizer *t = r->tokenizer;
    tsr_status st = TSR_OK;
    int32_t next = next_id(t->vocabulary.count, -1);
    for (size_t i = 0; st == TSR_OK && i < json_array_size(added); i++)
        st = read_added_token(r, json_array_get(added, i), i, &next);
    if (st != TSR_OK)
        return st;
    if (!tsr_added_tokens_seal(&t->raw_added) || !tsr_added_tokens_seal(&t->normalized_added))
        return refuse_tokenizer(r, "added_tokens holds the same content twice");
    return TSR_OK;
}

static tsr_status read_normalizer(const reader *r, const json_t *normalizer)
{
    if (is_absent(normalizer))
        return TSR_OK;
    if (is_type(normalizer, "NFC")) {
        r->tokenizer->nfc = true;
        return TSR_OK;
    }
    const json_t *steps = json_object_get(normalizer, "normalizers");
    if (!is_type(normalizer, "Sequence") || !json_is_array(steps))
        return refuse_tokenizer(r, "normalizer %s is not served; NFC or none is",
                                shown(json_object_get(normalizer, "type")));
    for (size_t i = 0; i < json_array_size(steps); i++) {
        const json_t *step = json_array_get(steps, i);
        if (!is_type(step, "NFC"))
            return refuse_tokenizer(r, "normalizer.normalizers[%zu] %s is not served; NFC is", i,
                                    shown(json_object_get(step, "type")));
        r->tokenizer->nfc = true;
    }
    return TSR_OK;
}

static tsr_status check_byte_level(const reader *r, const json_t *step, bool with_pattern)
{
    if (!is_type(step, "ByteLevel"))
        return refuse_tokenizer(
            r, "pre_tokenizer %s is not served; Split by a Regex and ByteLevel are",
            shown(json_object_get(step, "type")));
    if (!json_is_false(json_object_get(step, "add_prefix_space")))
        return refuse_tokenizer(
            r, "pre_tokenizer ByteLevel: add_prefix_space is not false, which is not "
               "served");
    const json_t *use_regex = json_object_get(step, "use_regex");
    const bool uses = use_regex == NULL || json_is_true(use_regex);
    if (uses != with_pattern)
        return refuse_tokenizer(
            r, "pre_tokenizer ByteLevel: use_regex is %s, which is not served %s a Split",
            uses ? "true" : "false", with_pattern ? "without" : "behind");
    return TSR_OK;
}

static tsr_status read_split(const reader *r, const json_t *step)
{
    if (!is_type(step, "Split"))
        return refuse_tokenizer(
            r, "pre_tokenizer %s is not served; Split by a Regex and ByteLevel are",
            shown(json_object_get(step, "type")));
    const char *behavior = json_string_value(json_object_get(step, "behavior"));
    if (behavior == NULL || strcmp(behavior, "Isolated") != 0)
        return refuse_tokenizer(r, "pre_tokenizer Split: behavior %s is not served; Isolated is",
                                shown(json_object_get(step, "behavior")));
    if (!json_is_false(json_object_get(step, "invert")))
        return refuse_tokenizer(r, "pre_tokenizer Split: invert is not false, which is not served");
    const json_t *regex = json_object_get(json_object_get(step, "pattern"), "Regex");
    if (!json_is_string(regex) || strlen(json_string_value(regex)) != json_string_length(regex))
        return refuse_tokenizer(
            r, "pre_tokenizer Split: pattern is not a Regex, which alone is served");
    return tsr_split_pattern_open(r->path, json_string_value(regex), r->problems,
                                  &r->tokenizer->pattern);
}

static tsr_status read_pre_tokenizer(const reader *r, const json_t *pre_tokenizer)
{
    const json_t *only = pre_tokenizer;
    if (is_absent(pre_tokenizer))
        return refuse_tokenizer(r, "pre_tokenizer is missing");
    if (is_type(pre_tokenizer, "Sequence")) {
        const json_t *steps = json_object_get(pre_tokenizer, "pretokenizers");
        only = json_array_get(steps, 0);
        if (json_array_size(steps) == 2) {
            const tsr_status st = check_byte_level(r, json_array_get(steps, 1), false);
            return st == TSR_OK ? read_split(r, only) : st;
        }
        if (json_array_size(steps) != 1)
            return refuse_tokenizer(
                r,
                "pre_tokenizer Sequence of %zu steps is not served; one Split and one "
                "ByteLevel are",
                json_array_size(steps));
    }
    const tsr_status st = check_byte_level(r, only, true);
    if (st != TSR_OK)
        return st;
    return tsr_split_pattern_open(r->path, byte_level_pattern, r->problems, &r->tokenizer->pattern);
}

tsr_status tsr_tokenizer_file_read(const char *path, const json_t *file, tsr_problems *problems,
                                   tsr_tokenizer *tokenizer)
{
    const reader r = {.path = path, .problems = problems, .tokenizer = tokenizer};
    const json_t *model = json_object_get(file, "model");
    json_t *vocab = json_object_get(model, "vocab");
    const json_t *added = json_object_get(file, "added_tokens");
    const json_t *decoder = json_object_get(file, "decoder");

    tsr_tokenizer_fields_warn(path, file, problems);
    tsr_status st = check_model(&r, model);
    if (st == TSR_OK && !is_absent(added) && !json_is_array(added))
        st = refuse_tokenizer(&r, "added_tokens is not an array");
    if (st == TSR_OK && !is_type(decoder, "ByteLevel"))
        st = refuse_tokenizer(&r, "decoder %s is not served; ByteLevel is",
                              shown(json_object_get(decoder, "type")));
    if (st == TSR_OK)
        st = read_normalizer(&r, json_object_get(file, "normalizer"));
    if (st == TSR_OK)
        st = read_pre_tokenizer(&r, json_object_get(file, "pre_tokenizer"));
    if (st == TSR_OK)
        st = size_vocabulary(&r, vocab, added);
    if (st == TSR_OK)
        st = read_vocab(&r, vocab);
    if (st == TSR_OK)
        st = read_merges(&r, json_object_get(model, "merges"));
    if (st == TSR_OK)
        st = read_added(&r, added);
    if (st == TSR_OK)
        st = tsr_post_processor_read(path, json_object_get(file, "post_processor"),
                                     tokenizer->vocabulary.ids, problems, &tokenizer->surround);
    tokenizer->whole_words = json_is_true(json_object_get(model, "ignore_merges"));
    return st;
}
