/* A token is shown as the text that its bytes are by themselves: part of a character as U+FFFD, in a
 * chat with its bytes beside it. */
#include "launch/request/answer_logprobs.h"

#include "runtime/base/text_buffer.h"
#include "runtime/text/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_CAPACITY = 64, KEY_BYTES = 16 };

/* What OpenAI's API has for what is next to impossible. */
static const double least_logprob = -9999.0;

static tsr_status grow(tsr_logprob_list *list, size_t count)
{
    size_t capacity = list->capacity > 0 ? list->capacity : FIRST_CAPACITY;

    if (list->count + count <= list->capacity)
        return TSR_OK;
    while (capacity < list->count + count)
        capacity *= 2;
    tsr_token_logprob *token = realloc(list->token, capacity * sizeof(*token));
    if (token == NULL)
        return TSR_ERR_MEMORY;
    list->token = token;
    if (list->top_count > 0) {
        tsr_token_logprob *top =
            realloc(list->top, capacity * (size_t)list->top_count * sizeof(*top));
        if (top == NULL)
            return TSR_ERR_MEMORY;
        list->top = top;
    }
    list->capacity = capacity;
    return TSR_OK;
}

tsr_status tsr_logprobs_add(tsr_logprob_list *list, const tsr_token_logprob *token,
                            const tsr_token_logprob *top, int32_t count)
{
    const size_t width = (size_t)list->top_count;

    const tsr_status st = grow(list, (size_t)count);
    if (st != TSR_OK)
        return st;
    memcpy(list->token + list->count, token, (size_t)count * sizeof(*token));
    if (width > 0)
        memcpy(list->top + list->count * width, top, (size_t)count * width * sizeof(*top));
    list->count += (size_t)count;
    return TSR_OK;
}

tsr_status tsr_logprobs_add_first(tsr_logprob_list *list, int32_t token)
{
    const tsr_token_logprob none[TSR_MOST_TOP] = {{0}};
    const tsr_token_logprob first = {.token = token};

    list->first_is_unknown = true;
    return tsr_logprobs_add(list, &first, none, 1);
}

void tsr_logprobs_close(tsr_logprob_list *list)
{
    free(list->token);
    free(list->top);
    *list = (tsr_logprob_list){0};
}

/* The text of a token; *ret_characters may be NULL. */
static tsr_status show_token(const tsr_tokenizer *tokenizer, int32_t id, tsr_text *text,
                             size_t *ret_characters)
{
    const char *bytes = "";
    size_t count = 0;
    size_t characters = 0;
    bool special = false;
    tsr_status st = TSR_OK;

    tsr_text_clear(text);
    if (!tsr_tokenizer_bytes(tokenizer, id, &bytes, &count, &special))
        count = 0;
    for (size_t at = 0; at < count && st == TSR_OK; characters++) {
        tsr_utf8_kind kind;
        const size_t step = tsr_utf8_step(bytes + at, count - at, &kind);
        st = kind == TSR_UTF8_WHOLE ? tsr_text_add(text, bytes + at, step)
                                    : tsr_text_add_string(text, TSR_UTF8_REPLACEMENT);
        at += step;
    }
    if (st == TSR_OK && text->bytes == NULL)
        st = tsr_text_add_string(text, "");
    if (ret_characters != NULL)
        *ret_characters = characters;
    return st;
}

static double shown_logprob(float logprob)
{
    const double x = (double)logprob;
    return x > least_logprob ? x : least_logprob;
}

static json_t *string_of(const tsr_text *text)
{
    return json_stringn(text->bytes != NULL ? text->bytes : "", text->count);
}

/* Puts a token's text and value into an object, unless a larger value stands there. */
static bool put(json_t *object, const tsr_tokenizer *tokenizer, const tsr_token_logprob *p)
{
    const double value = shown_logprob(p->logprob);
    tsr_text text = {0};

    bool good = show_token(tokenizer, p->token, &text, NULL) == TSR_OK;
    const char *key = text.bytes != NULL ? text.bytes : "";
    const json_t *there = good ? json_object_getn(object, key, text.count) : NULL;
    if (good && (there == NULL || json_real_value(there) < value))
        good = json_object_setn_new(object, key, text.count, json_real(value)) == 0;
    tsr_text_close(&text);
    return good;
}

static json_t *top_object(const tsr_logprob_list *list, size_t i, const tsr_tokenizer *tokenizer)
{
    const tsr_token_logprob *top = list->top + i * (size_t)list->top_count;
    json_t *object = json_object();
    bool good = object != NULL && put(object, tokenizer, &list->token[i]);

    for (int32_t n = 0; n < list->top_count && good && top[n].token >= 0; n++)
        good = put(object, tokenizer, &top[n]);
    if (good)
        return object;
    json_decref(object);
    return NULL;
}

/* Appends what there is of token i to the four lists of a completion. */
static bool add_to_lists(const tsr_logprob_list *list, size_t i, const tsr_tokenizer *tokenizer,
                         size_t *offset, json_t *lists[4])
{
    const bool unknown = i == 0 && list->first_is_unknown;
    tsr_text text = {0};
    size_t characters = 0;

    bool good = show_token(tokenizer, list->token[i].token, &text, &characters) == TSR_OK;
    good = good && json_array_append_new(lists[0], string_of(&text)) == 0;
    good = good && json_array_append_new(
                       lists[1], unknown ? json_null()
                                         : json_real(shown_logprob(list->token[i].logprob))) == 0;
    good = good && json_array_append_new(lists[2], unknown ? json_null()
                                                           : top_object(list, i, tokenizer)) == 0;
    good = good && json_array_append_new(lists[3], json_integer((json_int_t)*offset)) == 0;
    tsr_text_close(&text);
    *offset += characters;
    return good;
}

json_t *tsr_logprobs_completion(tsr_logprob_list *list, const tsr_tokenizer *tokenizer)
{
    json_t *lists[4] = {json_array(), json_array(), json_array(), json_array()};
    bool good = lists[0] != NULL && lists[1] != NULL && lists[2] != NULL && lists[3] != NULL;

    for (; list->told < list->count && good; list->told++)
        good = add_to_lists(list, list->told, tokenizer, &list->told_characters, lists);
    if (good)
        return json_pack("{s:o, s:o, s:o, s:o}", "tokens", lists[0], "token_logprobs", lists[1],
                         "top_logprobs", lists[2], "text_offset", lists[3]);
    for (int n = 0; n < 4; n++)
        json_decref(lists[n]);
    return NULL;
}

static json_t *bytes_of(const tsr_tokenizer *tokenizer, int32_t id)
{
    json_t *list = json_array();
    const char *bytes = "";
    size_t count = 0;
    bool special = false;
    bool good = list != NULL;

    if (!tsr_tokenizer_bytes(tokenizer, id, &bytes, &count, &special))
        count = 0;
    for (size_t i = 0; i < count && good; i++)
        good = json_array_append_new(list, json_integer((unsigned char)bytes[i])) == 0;
    if (good)
        return list;
    json_decref(list);
    return NULL;
}

/* {"token":...,"logprob":...,"bytes":[...]} */
static json_t *chat_token(const tsr_tokenizer *tokenizer, const tsr_token_logprob *p)
{
    tsr_text text = {0};
    json_t *object = NULL;

    if (show_token(tokenizer, p->token, &text, NULL) == TSR_OK)
        object = json_pack("{s:o, s:f, s:o}", "token", string_of(&text), "logprob",
                           shown_logprob(p->logprob), "bytes", bytes_of(tokenizer, p->token));
    tsr_text_close(&text);
    return object;
}

static json_t *chat_entry(const tsr_logprob_list *list, size_t i, const tsr_tokenizer *tokenizer)
{
    const tsr_token_logprob *top = list->top + i * (size_t)list->top_count;
    json_t *entry = chat_token(tokenizer, &list->token[i]);
    json_t *others = json_array();
    bool good = entry != NULL && others != NULL;

    for (int32_t n = 0; n < list->top_count && good && top[n].token >= 0; n++)
        good = json_array_append_new(others, chat_token(tokenizer, &top[n])) == 0;
    if (good && json_object_set(entry, "top_logprobs", others) == 0) {
        json_decref(others);
        return entry;
    }
    json_decref(others);
    json_decref(entry);
    return NULL;
}

json_t *tsr_logprobs_chat(tsr_logprob_list *list, const tsr_tokenizer *tokenizer)
{
    json_t *content = json_array();
    bool good = content != NULL;

    for (; list->told < list->count && good; list->told++)
        good = json_array_append_new(content, chat_entry(list, list->told, tokenizer)) == 0;
    if (good)
        return json_pack("{s:o}", "content", content);
    json_decref(content);
    return NULL;
}

/* "17": {"logprob":...,"rank":...,"decoded_token":...} */
static bool put_ranked(json_t *object, const tsr_tokenizer *tokenizer, const tsr_token_logprob *p,
                       int32_t rank)
{
    char key[KEY_BYTES];
    tsr_text text = {0};
    json_t *entry = NULL;

    (void)snprintf(key, sizeof(key), "%d", p->token);
    if (show_token(tokenizer, p->token, &text, NULL) == TSR_OK)
        entry = json_pack("{s:f, s:o, s:o}", "logprob", shown_logprob(p->logprob), "rank",
                          rank > 0 ? json_integer(rank) : json_null(), "decoded_token",
                          string_of(&text));
    tsr_text_close(&text);
    return json_object_set_new(object, key, entry) == 0;
}

static json_t *prompt_entry(const tsr_logprob_list *list, size_t i, const tsr_tokenizer *tokenizer)
{
    const tsr_token_logprob *top = list->top + i * (size_t)list->top_count;
    json_t *entry = json_object();
    int32_t rank = 0;

    for (int32_t n = 0; n < list->top_count; n++) {
        if (top[n].token == list->token[i].token)
            rank = n + 1;
    }
    bool good = entry != NULL && put_ranked(entry, tokenizer, &list->token[i], rank);
    for (int32_t n = 0; n < list->top_count && good && top[n].token >= 0; n++) {
        if (n + 1 != rank)
            good = put_ranked(entry, tokenizer, &top[n], n + 1);
    }
    if (good)
        return entry;
    json_decref(entry);
    return NULL;
}

json_t *tsr_logprobs_prompt(const tsr_logprob_list *list, const tsr_tokenizer *tokenizer)
{
    json_t *all = json_array();
    bool good = all != NULL;

    for (size_t i = 0; i < list->count && good; i++) {
        const bool unknown = i == 0 && list->first_is_unknown;
        good = json_array_append_new(all,
                                     unknown ? json_null() : prompt_entry(list, i, tokenizer)) == 0;
    }
    if (good)
        return all;
    json_decref(all);
    return NULL;
}
