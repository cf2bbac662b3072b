/*
 * What may yet become a tag is held back, with the whitespace in front of it; everything else comes
 * out at once, but a call, which is held until it is whole.
 *
 *             <think>              </think>                <tool_call>
 *    BEGIN ------------> THINKS -------------> SAYS <------------------------> CALLS
 *      |                    |                   ^           </tool_call>
 *      +--------------------|-------------------+
 *                           +----- <tool_call> -+
 */
#define _GNU_SOURCE /* memmem */
#include "runtime/text/answer_parser.h"

#include "runtime/text/tool_call.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef enum parser_state { BEGIN, THINKS, SAYS, CALLS } parser_state;

const char tsr_think_open[] = "<think>";
const char tsr_think_close[] = "</think>";

/* How a call begins, and what ends one that began so. */
typedef struct call_tags {
    const char *open;
    const char *close;
    bool is_body; /* the opening tag is part of what is read */
} call_tags;

static const call_tags tool_call_tags = {"<tool_call>", "</tool_call>", false};
/* Qwen3-Coder leaves the outer tag away at times. */
static const call_tags function_tags = {"<function=", "</function>", true};

struct tsr_answer_parser {
    tsr_call_style style; /* TSR_CALLS_NONE: tags are content */
    const json_t *tools;
    parser_state state;
    bool thinks;
    bool is_fresh;         /* whitespace that comes first is not part of it */
    tsr_text held;         /* in CALLS: whitespace, the opening tag, then the body */
    const call_tags *tags; /* in CALLS */
    size_t body;           /* where the body begins in `held` */
    size_t searched;       /* of held */
    tsr_answer_parts parts;
    size_t call_room;
};

static bool holds(const char *text, size_t bytes, const char *word)
{
    return memmem(text, bytes, word, strlen(word)) != NULL;
}

tsr_answer_style tsr_answer_style_of(const char *chat_template, size_t bytes)
{
    tsr_answer_style style = {.thinks = holds(chat_template, bytes, tsr_think_open) ||
                                        holds(chat_template, bytes, tsr_think_close)};

    if (holds(chat_template, bytes, "<arg_key>"))
        style.calls = TSR_CALLS_ARGUMENT;
    else if (holds(chat_template, bytes, function_tags.open))
        style.calls = TSR_CALLS_FUNCTION;
    else if (holds(chat_template, bytes, tool_call_tags.open))
        style.calls = TSR_CALLS_JSON;
    return style;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

/* Bytes up to the whitespace at the end. */
static size_t without_space(const char *bytes, size_t count)
{
    while (count > 0 && is_space(bytes[count - 1]))
        count--;
    return count;
}

static bool ends_with(const char *bytes, size_t count, const char *word)
{
    const size_t length = strlen(word);
    return count >= length && memcmp(bytes + count - length, word, length) == 0;
}

tsr_thinking tsr_answer_thinking(const tsr_answer_style *style, const char *prompt, size_t bytes)
{
    const size_t count = without_space(prompt, bytes);

    if (!style->thinks || ends_with(prompt, count, tsr_think_close))
        return TSR_THINKING_NEVER;
    return ends_with(prompt, count, tsr_think_open) ? TSR_THINKING_OPEN : TSR_THINKING_MAY;
}

tsr_status tsr_answer_parser_open(const tsr_answer_args *args, tsr_answer_parser **ret_parser)
{
    tsr_answer_parser *p = calloc(1, sizeof(*p));
    if (p == NULL)
        return TSR_ERR_MEMORY;

    p->style = json_array_size(args->tools) > 0 ? args->style.calls : TSR_CALLS_NONE;
    p->tools = args->tools;
    p->thinks = args->style.thinks;
    const tsr_thinking thinking =
        tsr_answer_thinking(&args->style, args->prompt, args->prompt_bytes);
    const bool is_closed = p->thinks && thinking == TSR_THINKING_NEVER;
    p->is_fresh = is_closed || thinking == TSR_THINKING_OPEN;
    p->state = thinking == TSR_THINKING_OPEN ? THINKS : thinking == TSR_THINKING_MAY ? BEGIN : SAYS;
    *ret_parser = p;
    return TSR_OK;
}

tsr_answer_parts *tsr_answer_parser_parts(tsr_answer_parser *parser)
{
    return &parser->parts;
}

bool tsr_answer_parser_is_thinking(const tsr_answer_parser *parser)
{
    return parser->state == THINKS;
}

/* Where `tag` begins; SIZE_MAX when it does not. */
static size_t find_tag(const tsr_text *text, size_t from, const char *tag)
{
    const char *at = from < text->count
                         ? memmem(text->bytes + from, text->count - from, tag, strlen(tag))
                         : NULL;
    return at != NULL ? (size_t)(at - text->bytes) : SIZE_MAX;
}

/* Bytes at the end that begin `tag`. */
static size_t begun(const tsr_text *text, const char *tag)
{
    size_t most = strlen(tag) - 1;

    if (most > text->count)
        most = text->count;
    while (most > 0 && memcmp(text->bytes + text->count - most, tag, most) != 0)
        most--;
    return most;
}

static void drop_space(tsr_text *text)
{
    size_t count = 0;

    while (count < text->count && is_space(text->bytes[count]))
        count++;
    tsr_text_drop(text, count);
}

/* The first opening tag of a call, with what ends it; SIZE_MAX when there is none. */
static size_t find_call(const tsr_answer_parser *p, const call_tags **ret_tags)
{
    size_t at = SIZE_MAX;

    if (p->style == TSR_CALLS_NONE)
        return at;
    *ret_tags = &tool_call_tags;
    at = find_tag(&p->held, 0, tool_call_tags.open);
    if (p->style == TSR_CALLS_FUNCTION) {
        const size_t bare = find_tag(&p->held, 0, function_tags.open);
        if (bare < at) {
            *ret_tags = &function_tags;
            at = bare;
        }
    }
    return at;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Bytes of `held` that can go out: not those that may become a tag. */
static size_t safe_bytes(const tsr_answer_parser *p, bool is_final)
{
    const tsr_text *held = &p->held;
    size_t tag = 0;

    if (is_final)
        return held->count;
    if (p->state == THINKS)
        tag = begun(held, tsr_think_close);
    if (p->style != TSR_CALLS_NONE)
        tag = larger(tag, begun(held, tool_call_tags.open));
    if (p->style == TSR_CALLS_FUNCTION)
        tag = larger(tag, begun(held, function_tags.open));
    if (p->state == SAYS && p->style == TSR_CALLS_NONE)
        return held->count;
    return without_space(held->bytes, held->count - tag);
}

/* Moves the first bytes of `held` to `out`. */
static tsr_status give(tsr_answer_parser *p, size_t count, tsr_text *out)
{
    const tsr_status st = tsr_text_add(out, p->held.bytes, count);
    if (st == TSR_OK)
        tsr_text_drop(&p->held, count);
    return st;
}

/* Nothing but whitespace may stand in front of <think>. */
static bool begin(tsr_answer_parser *p, bool is_final)
{
    const tsr_text *held = &p->held;
    size_t at = 0;

    while (at < held->count && is_space(held->bytes[at]))
        at++;
    const size_t left = held->count - at;
    const size_t tag = sizeof(tsr_think_open) - 1;
    if (left < tag && !is_final &&
        (left == 0 || memcmp(held->bytes + at, tsr_think_open, left) == 0))
        return false;
    p->state = SAYS;
    if (left >= tag && memcmp(held->bytes + at, tsr_think_open, tag) == 0) {
        tsr_text_drop(&p->held, at + tag);
        p->state = THINKS;
        p->is_fresh = true;
    }
    return true;
}

/* *ret_on: there is more to be looked at, in another state. */
static tsr_status think(tsr_answer_parser *p, bool is_final, bool *ret_on)
{
    const call_tags *tags = NULL;

    if (p->is_fresh)
        drop_space(&p->held);
    p->is_fresh = p->is_fresh && p->held.count == 0;
    const size_t close = find_tag(&p->held, 0, tsr_think_close);
    const size_t call = find_call(p, &tags);
    *ret_on = close != SIZE_MAX || call != SIZE_MAX;
    if (!*ret_on) {
        const size_t safe = safe_bytes(p, is_final);
        return give(p, is_final ? without_space(p->held.bytes, safe) : safe, &p->parts.reasoning);
    }
    const size_t end = close < call ? close : call;
    const tsr_status st = give(p, without_space(p->held.bytes, end), &p->parts.reasoning);
    drop_space(&p->held);
    if (close < call)
        tsr_text_drop(&p->held, sizeof(tsr_think_close) - 1);
    p->state = SAYS;
    p->is_fresh = true;
    return st;
}

static tsr_status say(tsr_answer_parser *p, bool is_final, bool *ret_on)
{
    const call_tags *tags = NULL;

    if (p->is_fresh)
        drop_space(&p->held);
    p->is_fresh = p->is_fresh && p->held.count == 0;
    const size_t call = find_call(p, &tags);
    *ret_on = call != SIZE_MAX;
    if (*ret_on) {
        const size_t end = without_space(p->held.bytes, call);
        p->state = CALLS;
        p->tags = tags;
        p->body = call - end + (tags->is_body ? 0 : strlen(tags->open));
        p->searched = p->body;
        return give(p, end, &p->parts.content);
    }
    return give(p, safe_bytes(p, is_final), &p->parts.content);
}

static tsr_status add_call(tsr_answer_parser *p, const tsr_tool_call *call)
{
    if (p->parts.call_count == p->call_room) {
        const size_t room = p->call_room > 0 ? p->call_room * 2 : 4;
        tsr_tool_call *grown = realloc(p->parts.calls, room * sizeof(*grown));
        if (grown == NULL)
            return TSR_ERR_MEMORY;
        p->parts.calls = grown;
        p->call_room = room;
    }
    p->parts.calls[p->parts.call_count++] = *call;
    return TSR_OK;
}

/* What lies in front of `close` is the call's; what is none goes out as it stands, up to `end`. */
static tsr_status end_call(tsr_answer_parser *p, size_t close, size_t end)
{
    tsr_tool_call call = {0};
    bool read = false;

    tsr_status st = tsr_tool_call_read(p->style, p->tools, p->held.bytes + p->body, close - p->body,
                                       &call, &read);
    if (st != TSR_OK)
        return st;
    p->state = SAYS;
    if (!read)
        return give(p, end, &p->parts.content);
    st = add_call(p, &call);
    if (st != TSR_OK) {
        free(call.name);
        free(call.arguments);
        return st;
    }
    tsr_text_drop(&p->held, end);
    p->is_fresh = true;
    return TSR_OK;
}

static tsr_status call(tsr_answer_parser *p, bool is_final, bool *ret_on)
{
    const size_t tag = strlen(p->tags->close);
    size_t close;

    while ((close = find_tag(&p->held, p->searched, p->tags->close)) != SIZE_MAX) {
        if (!tsr_tool_call_is_open(p->style, p->held.bytes + p->body, close - p->body)) {
            *ret_on = true;
            return end_call(p, close, close + tag);
        }
        p->searched = close + 1;
    }
    if (p->held.count >= p->searched + tag)
        p->searched = p->held.count - tag + 1;
    *ret_on = false;
    return is_final ? end_call(p, p->held.count, p->held.count) : TSR_OK;
}

static tsr_status advance(tsr_answer_parser *p, bool is_final)
{
    tsr_status st = TSR_OK;
    bool on = true;

    while (st == TSR_OK && on) {
        switch (p->state) {
        case BEGIN:
            on = begin(p, is_final);
            break;
        case THINKS:
            st = think(p, is_final, &on);
            break;
        case SAYS:
            st = say(p, is_final, &on);
            break;
        case CALLS:
            st = call(p, is_final, &on);
            break;
        }
    }
    return st;
}

tsr_status tsr_answer_parser_push(tsr_answer_parser *parser, const char *bytes, size_t count)
{
    const tsr_status st = tsr_text_add(&parser->held, bytes, count);
    return st == TSR_OK ? advance(parser, false) : st;
}

tsr_status tsr_answer_parser_finish(tsr_answer_parser *parser)
{
    return advance(parser, true);
}

void tsr_answer_parser_close(tsr_answer_parser *p)
{
    if (p == NULL)
        return;
    for (size_t i = 0; i < p->parts.call_count; i++) {
        free(p->parts.calls[i].name);
        free(p->parts.calls[i].arguments);
    }
    free(p->parts.calls);
    tsr_text_close(&p->parts.reasoning);
    tsr_text_close(&p->parts.content);
    tsr_text_close(&p->held);
    free(p);
}
