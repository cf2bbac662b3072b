/* Methods of text. */
#include "runtime/text/jinja/run.h"

#include <string.h>

enum { NEEDLE_MOST = 1024 }; /* where the work is the product of two lengths */

typedef tsr_jinja_value value;

/* The slot as an optional integer. */
static tsr_status whole(tsr_jinja_call *call, size_t slot, int64_t missing, int64_t *ret_integer)
{
    if (call->slots[slot].kind == TSR_JINJA_MISSING) {
        *ret_integer = missing;
        return TSR_OK;
    }
    if (!tsr_jinja_is_whole(call->slots[slot], ret_integer))
        return tsr_jinja_fail(call->run, "an integer is needed, not %s",
                              tsr_jinja_type_name(call->slots[slot]));
    return TSR_OK;
}

static tsr_status need_text(tsr_jinja_run *run, value v, tsr_jinja_text *ret_text)
{
    if (v.kind != TSR_JINJA_TEXT)
        return tsr_jinja_fail(run, "a text is needed, not %s", tsr_jinja_type_name(v));
    *ret_text = v.as.text;
    return TSR_OK;
}

/* Text made of the object's text: safe if that is. */
static tsr_status give(tsr_jinja_call *call, tsr_jinja_text text, value *ret)
{
    *ret = tsr_jinja_text_value(text);
    ret->safe = call->self.safe;
    return TSR_OK;
}

static tsr_status give_built(tsr_jinja_call *call, tsr_status st, tsr_text *built, value *ret)
{
    st = tsr_jinja_built(call->run, st, built, ret);
    if (st == TSR_OK)
        ret->safe = call->self.safe;
    return st;
}

/* The part of the object between the code points in two slots, as str.find and others take them. */
static tsr_status window(tsr_jinja_call *call, size_t slot, size_t *ret_from, tsr_jinja_text *ret)
{
    const tsr_jinja_text text = call->self.as.text;
    const int64_t length = (int64_t)tsr_jinja_length(text);
    int64_t from = 0;
    int64_t to = 0;
    const bool any =
        call->slots[slot].kind != TSR_JINJA_MISSING && call->slots[slot].kind != TSR_JINJA_NONE;
    tsr_status st = any ? whole(call, slot, 0, &from) : TSR_OK;
    if (st == TSR_OK)
        st = call->slots[slot + 1].kind == TSR_JINJA_NONE ? TSR_OK
                                                          : whole(call, slot + 1, length, &to);
    if (st != TSR_OK)
        return st;
    if (call->slots[slot + 1].kind == TSR_JINJA_NONE)
        to = length;
    from = from < 0 ? (from < -length ? 0 : from + length) : from;
    to = to < 0 ? (to < -length ? 0 : to + length) : to > length ? length : to;
    /* Behind the end nothing is found, not even nothing. */
    *ret_from = from > length || from > to ? SIZE_MAX : tsr_jinja_offset(text, (size_t)from);
    *ret = *ret_from == SIZE_MAX
               ? (tsr_jinja_text){.bytes = "", .count = 0}
               : tsr_jinja_text_part(text, *ret_from, tsr_jinja_offset(text, (size_t)to));
    return TSR_OK;
}

typedef bool (*affix_function)(tsr_jinja_text text, tsr_jinja_text affix);

/* One affix or a tuple of them. */
static tsr_status has_affix(tsr_jinja_call *call, affix_function matches, value *ret)
{
    size_t from = 0;
    tsr_jinja_text text = {0};
    tsr_status st = window(call, 1, &from, &text);
    value affixes = call->slots[0];
    tsr_jinja_list one = {.items = &affixes, .count = 1};
    if (affixes.kind == TSR_JINJA_LIST && affixes.as.list->kind == TSR_JINJA_TUPLE)
        one = *affixes.as.list;
    bool found = false;
    for (size_t i = 0; i < one.count && st == TSR_OK && !found; i++) {
        tsr_jinja_text affix = {0};
        st = need_text(call->run, one.items[i], &affix);
        found = st == TSR_OK && from != SIZE_MAX && matches(text, affix);
    }
    if (st == TSR_OK)
        *ret = tsr_jinja_bool(found);
    return st;
}

static tsr_status text_startswith(tsr_jinja_call *call, value *ret)
{
    return has_affix(call, tsr_jinja_text_starts, ret);
}

static tsr_status text_endswith(tsr_jinja_call *call, value *ret)
{
    return has_affix(call, tsr_jinja_text_ends, ret);
}

static tsr_status strip(tsr_jinja_call *call, tsr_jinja_side side, value *ret)
{
    const value chars = call->slots[0];
    if (chars.kind == TSR_JINJA_MISSING || chars.kind == TSR_JINJA_NONE)
        return give(call, tsr_jinja_strip(call->self.as.text, NULL, side), ret);
    tsr_jinja_text set = {0};
    tsr_status st = need_text(call->run, chars, &set);
    if (st == TSR_OK && set.count > NEEDLE_MOST)
        return tsr_jinja_fail(call->run, "strip of more than %d bytes of characters", NEEDLE_MOST);
    if (st == TSR_OK)
        st = give(call, tsr_jinja_strip(call->self.as.text, &set, side), ret);
    /* each byte that went was looked for in the set */
    return st == TSR_OK
               ? tsr_jinja_spend(call->run,
                                 (call->self.as.text.count - ret->as.text.count) / 32 * set.count)
               : st;
}

static tsr_status text_strip(tsr_jinja_call *call, value *ret)
{
    return strip(call, TSR_JINJA_SIDE_BOTH, ret);
}

static tsr_status text_lstrip(tsr_jinja_call *call, value *ret)
{
    return strip(call, TSR_JINJA_SIDE_LEFT, ret);
}

static tsr_status text_rstrip(tsr_jinja_call *call, value *ret)
{
    return strip(call, TSR_JINJA_SIDE_RIGHT, ret);
}

static tsr_status text_upper(tsr_jinja_call *call, value *ret)
{
    tsr_text built = {0};
    return give_built(call, tsr_jinja_upper(call->self.as.text, &built), &built, ret);
}

static tsr_status text_lower(tsr_jinja_call *call, value *ret)
{
    tsr_text built = {0};
    return give_built(call, tsr_jinja_lower(call->self.as.text, &built), &built, ret);
}

static tsr_status text_title(tsr_jinja_call *call, value *ret)
{
    tsr_text built = {0};
    return give_built(call, tsr_jinja_title(call->self.as.text, &built), &built, ret);
}

static tsr_status text_capitalize(tsr_jinja_call *call, value *ret)
{
    tsr_text built = {0};
    return give_built(call, tsr_jinja_capitalize(call->self.as.text, &built), &built, ret);
}

/* Pieces of the object's text on their way into a list. */
typedef struct pieces {
    tsr_jinja_call *call;
    tsr_jinja_list *list;
    size_t capacity;
} pieces;

static tsr_status add_piece(pieces *p, size_t from, size_t to)
{
    tsr_status st = tsr_jinja_spend(p->call->run, 1);
    if (st == TSR_OK && p->list->count == p->capacity) {
        void *grown = NULL;
        st = tsr_jinja_alloc(p->call->run, p->capacity * 2 + 4, sizeof(value), &grown);
        if (st != TSR_OK)
            return st;
        if (p->list->count > 0)
            memcpy(grown, p->list->items, p->list->count * sizeof(value));
        p->list->items = grown;
        p->capacity = p->capacity * 2 + 4;
    }
    if (st != TSR_OK)
        return st;
    value *item = &p->list->items[p->list->count++];
    return give(p->call, tsr_jinja_text_part(p->call->self.as.text, from, to), item);
}

/* A piece after each separator, no more than `most` of which are looked for. */
static tsr_status split_by(pieces *p, tsr_jinja_text separator, int64_t most)
{
    const tsr_jinja_text text = p->call->self.as.text;
    size_t from = 0;
    size_t hit = most == 0 ? SIZE_MAX : tsr_jinja_text_find(text, separator, 0);
    tsr_status st = TSR_OK;
    while (hit != SIZE_MAX && st == TSR_OK) {
        st = add_piece(p, from, hit);
        from = hit + separator.count;
        most -= most > 0 ? 1 : 0;
        hit = most == 0 ? SIZE_MAX : tsr_jinja_text_find(text, separator, from);
    }
    return st == TSR_OK ? add_piece(p, from, text.count) : st;
}

/* Byte positions of white space: `from` moves over it. */
static size_t skip_spaces(tsr_jinja_text text, size_t from, bool spaces)
{
    while (from < text.count) {
        int32_t code = 0;
        const size_t used = tsr_jinja_decode(text, from, &code);
        if (tsr_jinja_is_space(code) != spaces)
            break;
        from += used;
    }
    return from;
}

static tsr_status split_by_space(pieces *p, int64_t most)
{
    const tsr_jinja_text text = p->call->self.as.text;
    tsr_status st = TSR_OK;
    size_t from = skip_spaces(text, 0, true);
    while (from < text.count && st == TSR_OK) {
        if (most == 0)
            return add_piece(p, from, text.count);
        const size_t to = skip_spaces(text, from, false);
        st = add_piece(p, from, to);
        most -= most > 0 ? 1 : 0;
        from = skip_spaces(text, to, true);
    }
    return st;
}

static tsr_status pieces_new(tsr_jinja_call *call, pieces *ret_pieces)
{
    *ret_pieces = (pieces){.call = call};
    return tsr_jinja_list_new(call->run, TSR_JINJA_PLAIN_LIST, 0, &ret_pieces->list);
}

static tsr_status text_split(tsr_jinja_call *call, value *ret)
{
    const value separator = call->slots[0];
    pieces p = {0};
    int64_t most = -1;
    tsr_status st = whole(call, 1, -1, &most);
    if (st == TSR_OK)
        st = pieces_new(call, &p);
    if (st != TSR_OK)
        return st;
    if (separator.kind == TSR_JINJA_MISSING || separator.kind == TSR_JINJA_NONE) {
        st = split_by_space(&p, most);
    } else {
        tsr_jinja_text text = {0};
        st = need_text(call->run, separator, &text);
        if (st == TSR_OK && text.count == 0)
            return tsr_jinja_fail(call->run, "split needs a separator that is not empty");
        if (st == TSR_OK)
            st = split_by(&p, text, most);
    }
    if (st == TSR_OK)
        *ret = tsr_jinja_list_value(p.list);
    return st;
}

/* Where `needle` ends last before byte `to`; SIZE_MAX when it does not. */
static size_t find_before(tsr_jinja_text text, tsr_jinja_text needle, size_t to)
{
    for (size_t at = to; at >= needle.count; at--) {
        if (tsr_jinja_text_ends(tsr_jinja_text_part(text, 0, at), needle))
            return at;
    }
    return SIZE_MAX;
}

static void turn_around(tsr_jinja_list *list)
{
    for (size_t i = 0; i < list->count / 2; i++) {
        const value other = list->items[i];
        list->items[i] = list->items[list->count - 1 - i];
        list->items[list->count - 1 - i] = other;
    }
}

/* From the right, a piece before each separator. */
static tsr_status text_rsplit(tsr_jinja_call *call, value *ret)
{
    const tsr_jinja_text text = call->self.as.text;
    tsr_jinja_text separator = {0};
    pieces p = {0};
    int64_t most = -1;
    tsr_status st = whole(call, 1, -1, &most);
    if (st == TSR_OK && call->slots[0].kind != TSR_JINJA_TEXT) {
        if (most < 0)
            return text_split(call, ret);
        return tsr_jinja_fail(call->run, "rsplit at white space, so many times, is not supported");
    }
    if (st == TSR_OK)
        st = need_text(call->run, call->slots[0], &separator);
    if (st == TSR_OK && (separator.count == 0 || separator.count > NEEDLE_MOST))
        return tsr_jinja_fail(call->run, "rsplit needs a separator of 1 to %d bytes", NEEDLE_MOST);
    if (st == TSR_OK)
        st = pieces_new(call, &p);
    size_t to = text.count;
    while (st == TSR_OK && most != 0) {
        const size_t hit = find_before(text, separator, to);
        if (hit == SIZE_MAX)
            break;
        st = add_piece(&p, hit, to);
        to = hit - separator.count;
        most -= most > 0 ? 1 : 0;
    }
    if (st == TSR_OK)
        st = add_piece(&p, 0, to);
    if (st != TSR_OK)
        return st;
    turn_around(p.list);
    *ret = tsr_jinja_list_value(p.list);
    return tsr_jinja_spend(call->run, text.count / 8);
}

static tsr_status text_splitlines(tsr_jinja_call *call, value *ret)
{
    const tsr_jinja_text text = call->self.as.text;
    const bool keep = call->slots[0].kind != TSR_JINJA_MISSING && tsr_jinja_truth(call->slots[0]);
    pieces p = {0};
    tsr_status st = pieces_new(call, &p);
    size_t from = 0;
    for (size_t at = 0; at < text.count && st == TSR_OK;) {
        int32_t code = 0;
        const size_t end = at;
        at += tsr_jinja_decode(text, at, &code);
        if (!tsr_jinja_is_line_end(code))
            continue;
        if (code == '\r' && at < text.count && text.bytes[at] == '\n')
            at++;
        st = add_piece(&p, from, keep ? at : end);
        from = at;
    }
    if (st == TSR_OK && from < text.count)
        st = add_piece(&p, from, text.count);
    if (st == TSR_OK)
        *ret = tsr_jinja_list_value(p.list);
    return st;
}

/* Into safe text only safe text goes. */
static tsr_status escaped_like(tsr_jinja_call *call, value text, tsr_jinja_text *ret_text)
{
    *ret_text = text.as.text;
    if (!call->self.safe || text.safe)
        return TSR_OK;
    tsr_text built = {0};
    value escaped = {0};
    tsr_status st = tsr_jinja_escape(call->run, text.as.text, &built);
    st = tsr_jinja_built(call->run, st, &built, &escaped);
    if (st == TSR_OK)
        *ret_text = escaped.as.text;
    return st;
}

static tsr_status text_replace(tsr_jinja_call *call, value *ret)
{
    const tsr_jinja_text text = call->self.as.text;
    tsr_jinja_text old = {0};
    tsr_jinja_text new_text = {0};
    int64_t most = -1;
    tsr_status st = need_text(call->run, call->slots[0], &old);
    if (st == TSR_OK)
        st = need_text(call->run, call->slots[1], &new_text);
    if (st == TSR_OK)
        st = escaped_like(call, call->slots[1], &new_text);
    if (st == TSR_OK)
        st = whole(call, 2, -1, &most);

    tsr_text built = {0};
    size_t from = 0;
    for (; st == TSR_OK && most != 0; most -= most > 0 ? 1 : 0) {
        const size_t hit = tsr_jinja_text_find(text, old, from);
        if (hit == SIZE_MAX)
            break;
        st = tsr_jinja_spend(call->run, 1);
        if (st == TSR_OK)
            st = tsr_jinja_add(call->run, &built, tsr_jinja_text_part(text, from, hit));
        if (st == TSR_OK)
            st = tsr_jinja_add(call->run, &built, new_text);
        from = hit + old.count;
        if (old.count > 0 || st != TSR_OK)
            continue;
        /* Nothing stands before each character and at the end. */
        if (from == text.count)
            break;
        int32_t code = 0;
        const size_t used = tsr_jinja_decode(text, from, &code);
        st = tsr_jinja_add(call->run, &built, tsr_jinja_text_part(text, from, from + used));
        from += used;
    }
    if (st == TSR_OK)
        st = tsr_jinja_add(call->run, &built, tsr_jinja_text_part(text, from, text.count));
    return give_built(call, st, &built, ret);
}

static tsr_status text_join(tsr_jinja_call *call, value *ret)
{
    tsr_jinja_list items = {0};
    tsr_text built = {0};
    tsr_status st = tsr_jinja_iterate(call->run, call->slots[0], &items);
    for (size_t i = 0; i < items.count && st == TSR_OK; i++) {
        tsr_jinja_text text = {0};
        if (i > 0)
            st = tsr_jinja_add(call->run, &built, call->self.as.text);
        if (st == TSR_OK)
            st = need_text(call->run, items.items[i], &text);
        if (st == TSR_OK)
            st = escaped_like(call, items.items[i], &text);
        if (st == TSR_OK)
            st = tsr_jinja_add(call->run, &built, text);
    }
    return give_built(call, st, &built, ret);
}

static tsr_status text_find(tsr_jinja_call *call, value *ret)
{
    size_t from = 0;
    tsr_jinja_text part = {0};
    tsr_jinja_text needle = {0};
    tsr_status st = need_text(call->run, call->slots[0], &needle);
    if (st == TSR_OK)
        st = window(call, 1, &from, &part);
    if (st != TSR_OK)
        return st;
    const size_t hit = from == SIZE_MAX ? SIZE_MAX : tsr_jinja_text_find(part, needle, 0);
    *ret = tsr_jinja_int(-1);
    if (hit != SIZE_MAX)
        *ret = tsr_jinja_int(
            (int64_t)tsr_jinja_length(tsr_jinja_text_part(call->self.as.text, 0, from + hit)));
    return TSR_OK;
}

static tsr_status text_rfind(tsr_jinja_call *call, value *ret)
{
    size_t from = 0;
    tsr_jinja_text part = {0};
    tsr_jinja_text needle = {0};
    tsr_status st = need_text(call->run, call->slots[0], &needle);
    if (st == TSR_OK)
        st = window(call, 1, &from, &part);
    if (st != TSR_OK)
        return st;
    *ret = tsr_jinja_int(-1);
    if (from == SIZE_MAX || needle.count > part.count)
        return TSR_OK;
    if (needle.count > NEEDLE_MOST)
        return tsr_jinja_fail(call->run, "rfind of more than %d bytes", NEEDLE_MOST);
    for (size_t at = part.count - needle.count + 1; at-- > 0;) {
        if (tsr_jinja_text_starts(tsr_jinja_text_part(part, at, part.count), needle)) {
            *ret = tsr_jinja_int(
                (int64_t)tsr_jinja_length(tsr_jinja_text_part(call->self.as.text, 0, from + at)));
            break;
        }
    }
    return tsr_jinja_spend(call->run, part.count / 8);
}

static tsr_status text_count(tsr_jinja_call *call, value *ret)
{
    size_t from = 0;
    tsr_jinja_text part = {0};
    tsr_jinja_text needle = {0};
    tsr_status st = need_text(call->run, call->slots[0], &needle);
    if (st == TSR_OK)
        st = window(call, 1, &from, &part);
    if (st != TSR_OK)
        return st;
    int64_t count = 0;
    if (from != SIZE_MAX && needle.count == 0)
        count = (int64_t)tsr_jinja_length(part) + 1;
    for (size_t at = 0; from != SIZE_MAX && needle.count > 0; count++) {
        at = tsr_jinja_text_find(part, needle, at);
        if (at == SIZE_MAX)
            break;
        at += needle.count;
    }
    *ret = tsr_jinja_int(count);
    return TSR_OK;
}

static tsr_status text_removeprefix(tsr_jinja_call *call, value *ret)
{
    tsr_jinja_text affix = {0};
    const tsr_jinja_text text = call->self.as.text;
    const tsr_status st = need_text(call->run, call->slots[0], &affix);
    if (st != TSR_OK)
        return st;
    const size_t from = tsr_jinja_text_starts(text, affix) ? affix.count : 0;
    return give(call, tsr_jinja_text_part(text, from, text.count), ret);
}

static tsr_status text_removesuffix(tsr_jinja_call *call, value *ret)
{
    tsr_jinja_text affix = {0};
    const tsr_jinja_text text = call->self.as.text;
    const tsr_status st = need_text(call->run, call->slots[0], &affix);
    if (st != TSR_OK)
        return st;
    const size_t off = tsr_jinja_text_ends(text, affix) ? affix.count : 0;
    return give(call, tsr_jinja_text_part(text, 0, text.count - off), ret);
}

static tsr_status text_isdigit(tsr_jinja_call *call, value *ret)
{
    const tsr_jinja_text text = call->self.as.text;
    bool all = text.count > 0;
    for (size_t i = 0; i < text.count && all; i++) {
        if ((unsigned char)text.bytes[i] >= 0x80)
            return tsr_jinja_fail(call->run, "isdigit beyond ASCII is not supported");
        all = text.bytes[i] >= '0' && text.bytes[i] <= '9';
    }
    *ret = tsr_jinja_bool(all);
    return TSR_OK;
}

static tsr_status text_isspace(tsr_jinja_call *call, value *ret)
{
    const tsr_jinja_text text = call->self.as.text;
    *ret = tsr_jinja_bool(text.count > 0 && skip_spaces(text, 0, true) == text.count);
    return TSR_OK;
}

static tsr_status text_islower(tsr_jinja_call *call, value *ret)
{
    *ret = tsr_jinja_bool(tsr_jinja_all_lower(call->self.as.text));
    return TSR_OK;
}

static tsr_status text_isupper(tsr_jinja_call *call, value *ret)
{
    *ret = tsr_jinja_bool(tsr_jinja_all_upper(call->self.as.text));
    return TSR_OK;
}

const tsr_jinja_builtin *tsr_jinja_find_text_method(tsr_jinja_text name)
{
    static const tsr_jinja_builtin rows[] = {
        {"startswith", text_startswith, 1, 3, {"", "", ""}},
        {"endswith", text_endswith, 1, 3, {"", "", ""}},
        {"strip", text_strip, 0, 1, {""}},
        {"lstrip", text_lstrip, 0, 1, {""}},
        {"rstrip", text_rstrip, 0, 1, {""}},
        {"upper", text_upper, 0, 0, {""}},
        {"lower", text_lower, 0, 0, {""}},
        {"title", text_title, 0, 0, {""}},
        {"capitalize", text_capitalize, 0, 0, {""}},
        {"split", text_split, 0, 2, {"sep", "maxsplit"}},
        {"rsplit", text_rsplit, 0, 2, {"sep", "maxsplit"}},
        {"splitlines", text_splitlines, 0, 1, {"keepends"}},
        {"replace", text_replace, 2, 3, {"", "", ""}},
        {"join", text_join, 1, 1, {""}},
        {"find", text_find, 1, 3, {"", "", ""}},
        {"rfind", text_rfind, 1, 3, {"", "", ""}},
        {"count", text_count, 1, 3, {"", "", ""}},
        {"removeprefix", text_removeprefix, 1, 1, {""}},
        {"removesuffix", text_removesuffix, 1, 1, {""}},
        {"isdigit", text_isdigit, 0, 0, {""}},
        {"isspace", text_isspace, 0, 0, {""}},
        {"islower", text_islower, 0, 0, {""}},
        {"isupper", text_isupper, 0, 0, {""}},
        {0},
    };
    return tsr_jinja_find_row(rows, name);
}
