#include "runtime/text/jinja/attribute_path.h"

static bool is_absent(tsr_jinja_value value)
{
    return value.kind == TSR_JINJA_MISSING || value.kind == TSR_JINJA_NONE;
}

/* One part between dots. */
static tsr_jinja_value key_of(tsr_jinja_text part)
{
    int64_t index = 0;
    bool digits = part.count > 0;
    for (size_t i = 0; i < part.count; i++)
        digits = digits && part.bytes[i] >= '0' && part.bytes[i] <= '9';
    if (digits && tsr_jinja_read_int(part, 10, &index) == TSR_JINJA_READ)
        return tsr_jinja_int(index);
    return tsr_jinja_text_value(part);
}

tsr_status tsr_jinja_follow(tsr_jinja_run *run, tsr_jinja_value item, tsr_jinja_value path,
                            tsr_jinja_value fallback, tsr_jinja_value *ret_value)
{
    *ret_value = item;
    if (is_absent(path))
        return TSR_OK;

    const bool dotted = path.kind == TSR_JINJA_TEXT;
    tsr_status st = TSR_OK;
    bool more = true;
    for (size_t from = 0; more && st == TSR_OK;) {
        tsr_jinja_value key = path;
        more = false;
        if (dotted) {
            const size_t dot = tsr_jinja_text_find(path.as.text, tsr_jinja_text_of("."), from);
            more = dot != SIZE_MAX;
            key = key_of(tsr_jinja_text_part(path.as.text, from, more ? dot : path.as.text.count));
            from = dot + 1;
        }
        st = tsr_jinja_item(run, item, key, &item);
        if (st == TSR_OK && item.kind == TSR_JINJA_UNDEFINED && !is_absent(fallback))
            item = fallback;
    }
    *ret_value = item;
    return st;
}

tsr_status tsr_jinja_fold(tsr_jinja_run *run, tsr_jinja_value item, tsr_jinja_value *ret_value)
{
    *ret_value = item;
    if (item.kind != TSR_JINJA_TEXT)
        return TSR_OK;
    tsr_text built = {0};
    return tsr_jinja_built(run, tsr_jinja_lower(item.as.text, &built), &built, ret_value);
}
