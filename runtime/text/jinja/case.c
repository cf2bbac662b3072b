/* Upper, lower and title case with the results of Python's str methods. */
#include "runtime/text/jinja/case.h"

#include "runtime/text/jinja/unicode.h"

#include <string.h>
#include <utf8proc.h>

enum { SIGMA = 0x3A3, SMALL_SIGMA = 0x3C3, FINAL_SIGMA = 0x3C2, DOTTED_I = 0x130, DOT = 0x307 };

static bool is_lower(int32_t code)
{
    return utf8proc_category(code) == UTF8PROC_CATEGORY_LL || tsr_jinja_is_other_lower(code);
}

static bool is_upper(int32_t code)
{
    return utf8proc_category(code) == UTF8PROC_CATEGORY_LU || tsr_jinja_is_other_upper(code);
}

static bool is_cased(int32_t code)
{
    return is_lower(code) || is_upper(code) || utf8proc_category(code) == UTF8PROC_CATEGORY_LT;
}

static bool is_case_ignorable(int32_t code)
{
    const utf8proc_category_t category = utf8proc_category(code);
    return category == UTF8PROC_CATEGORY_MN || category == UTF8PROC_CATEGORY_ME ||
           category == UTF8PROC_CATEGORY_CF || category == UTF8PROC_CATEGORY_LM ||
           category == UTF8PROC_CATEGORY_SK || code == '\'' || code == '.' || code == ':' ||
           code == 0xB7 || code == 0x2018 || code == 0x2019 || code == 0x2024 || code == 0x2027;
}

/* A sigma at the end of a word has a form of its own. `at` is the sigma's first byte. */
static bool is_final_sigma(tsr_jinja_text text, size_t at)
{
    int32_t code = 0;
    size_t before = at;
    while (before > 0) {
        before -= tsr_jinja_decode_before(text, before, &code);
        if (!is_case_ignorable(code))
            break;
        code = 0;
    }
    if (code == 0 || !is_cased(code))
        return false;

    size_t after = at;
    after += tsr_jinja_decode(text, after, &code);
    while (after < text.count) {
        after += tsr_jinja_decode(text, after, &code);
        if (!is_case_ignorable(code))
            return !is_cased(code);
    }
    return true;
}

static tsr_status add_code(tsr_text *out, int32_t code)
{
    char bytes[4];
    return tsr_text_add(out, bytes, tsr_jinja_encode(code, bytes));
}

static tsr_status add_codes(tsr_text *out, const int32_t *codes)
{
    tsr_status st = TSR_OK;
    for (size_t i = 0; i < 3 && codes[i] != 0 && st == TSR_OK; i++)
        st = add_code(out, codes[i]);
    return st;
}

static tsr_status add_upper(tsr_text *out, int32_t code)
{
    const tsr_jinja_special_case *special = tsr_jinja_special_case_of(code);
    return special != NULL ? add_codes(out, special->upper) : add_code(out, utf8proc_toupper(code));
}

static tsr_status add_title(tsr_text *out, int32_t code)
{
    const tsr_jinja_special_case *special = tsr_jinja_special_case_of(code);
    return special != NULL ? add_codes(out, special->title) : add_code(out, utf8proc_totitle(code));
}

/* The code point at byte `at` of `text`. */
static tsr_status add_lower(tsr_text *out, tsr_jinja_text text, size_t at)
{
    int32_t code = 0;
    (void)tsr_jinja_decode(text, at, &code);
    if (code == SIGMA)
        return add_code(out, is_final_sigma(text, at) ? FINAL_SIGMA : SMALL_SIGMA);
    tsr_status st = add_code(out, code == DOTTED_I ? 'i' : utf8proc_tolower(code));
    if (st == TSR_OK && code == DOTTED_I)
        st = add_code(out, DOT);
    return st;
}

tsr_status tsr_jinja_upper(tsr_jinja_text text, tsr_text *out)
{
    tsr_status st = TSR_OK;
    for (size_t at = 0; at < text.count && st == TSR_OK;) {
        int32_t code = 0;
        at += tsr_jinja_decode(text, at, &code);
        st = add_upper(out, code);
    }
    return st;
}

tsr_status tsr_jinja_lower(tsr_jinja_text text, tsr_text *out)
{
    tsr_status st = TSR_OK;
    for (size_t at = 0; at < text.count && st == TSR_OK;) {
        int32_t code = 0;
        st = add_lower(out, text, at);
        at += tsr_jinja_decode(text, at, &code);
    }
    return st;
}

tsr_status tsr_jinja_capitalize(tsr_jinja_text text, tsr_text *out)
{
    tsr_status st = TSR_OK;
    for (size_t at = 0; at < text.count && st == TSR_OK;) {
        int32_t code = 0;
        const size_t used = tsr_jinja_decode(text, at, &code);
        st = at == 0 ? add_title(out, code) : add_lower(out, text, at);
        at += used;
    }
    return st;
}

tsr_status tsr_jinja_title(tsr_jinja_text text, tsr_text *out)
{
    tsr_status st = TSR_OK;
    bool inside = false;
    for (size_t at = 0; at < text.count && st == TSR_OK;) {
        int32_t code = 0;
        const size_t used = tsr_jinja_decode(text, at, &code);
        st = inside ? add_lower(out, text, at) : add_title(out, code);
        inside = is_cased(code);
        at += used;
    }
    return st;
}

typedef bool (*case_question)(int32_t code);

/* Whether something is of the case `wanted`, and nothing of the case `other` or title case. */
static bool all_of_case(tsr_jinja_text text, case_question wanted, case_question other)
{
    bool found = false;
    for (size_t at = 0; at < text.count;) {
        int32_t code = 0;
        at += tsr_jinja_decode(text, at, &code);
        if (other(code) || utf8proc_category(code) == UTF8PROC_CATEGORY_LT)
            return false;
        found = found || wanted(code);
    }
    return found;
}

bool tsr_jinja_all_lower(tsr_jinja_text text)
{
    return all_of_case(text, is_lower, is_upper);
}

bool tsr_jinja_all_upper(tsr_jinja_text text)
{
    return all_of_case(text, is_upper, is_lower);
}
