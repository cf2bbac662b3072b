/* Arithmetic and what else + and * mean. Integers are of 64 bits; beyond them is an error, where
 * Python would go on. */
#include "runtime/text/jinja/run.h"

#include <errno.h>
#include <math.h>
#include <string.h>

static const char *const spellings[] = {"+", "-", "*", "/", "//", "%", "**"};

static tsr_status mismatch(tsr_jinja_run *run, tsr_jinja_operator op, const tsr_jinja_value *sides)
{
    return tsr_jinja_fail(run, "'%s' between %s and %s is not supported", spellings[op],
                          tsr_jinja_type_name(sides[0]), tsr_jinja_type_name(sides[1]));
}

static tsr_status overflow(tsr_jinja_run *run)
{
    return tsr_jinja_fail(run, "an integer beyond 64 bits is not supported");
}

static tsr_status by_zero(tsr_jinja_run *run)
{
    return tsr_jinja_fail(run, "division by zero");
}

static tsr_status float_power(tsr_jinja_run *run, double a, double b, tsr_jinja_value *ret_value)
{
    if (a == 0.0 && b < 0.0)
        return by_zero(run);
    if (a < 0.0 && isfinite(a) && isfinite(b) && b != floor(b))
        return tsr_jinja_fail(run, "a complex number is not supported");
    const double result = pow(a, b);
    if (isinf(result) && isfinite(a) && isfinite(b))
        return tsr_jinja_fail(run, "the result of ** is too large");
    *ret_value = tsr_jinja_float(result);
    return TSR_OK;
}

static tsr_status int_power(tsr_jinja_run *run, int64_t a, int64_t b, tsr_jinja_value *ret_value)
{
    if (b < 0)
        return float_power(run, (double)a, (double)b, ret_value);
    if (b > 64 && a > 1)
        return overflow(run);
    if (b > 64 && a < -1)
        return overflow(run);
    int64_t result = 1;
    /* With a in -1..1 only the parity of b matters. */
    for (int64_t i = b > 64 ? b % 2 + (b > 0 && a == 0 ? 2 : 0) : b; i > 0; i--) {
        if (__builtin_mul_overflow(result, a, &result))
            return overflow(run);
    }
    *ret_value = tsr_jinja_int(result);
    return TSR_OK;
}

/* Rounds toward minus infinity, as Python does. */
static tsr_status int_division(tsr_jinja_run *run, tsr_jinja_operator op, const int64_t *sides,
                               tsr_jinja_value *ret_value)
{
    const int64_t a = sides[0];
    const int64_t b = sides[1];
    if (b == 0)
        return by_zero(run);
    if (op == TSR_JINJA_DIV) {
        *ret_value = tsr_jinja_float((double)((long double)a / (long double)b));
        return TSR_OK;
    }
    if (b == -1) {
        int64_t quotient = 0;
        if (__builtin_sub_overflow(0, a, &quotient) && op == TSR_JINJA_FLOORDIV)
            return overflow(run);
        *ret_value = tsr_jinja_int(op == TSR_JINJA_MOD ? 0 : quotient);
        return TSR_OK;
    }
    const bool down = a % b != 0 && (a % b < 0) != (b < 0);
    *ret_value = tsr_jinja_int(op == TSR_JINJA_MOD ? a % b + (down ? b : 0) : a / b - down);
    return TSR_OK;
}

static tsr_status int_binary(tsr_jinja_run *run, tsr_jinja_operator op, const int64_t *sides,
                             tsr_jinja_value *ret_value)
{
    int64_t result = 0;
    bool too_large = false;
    if (op == TSR_JINJA_ADD)
        too_large = __builtin_add_overflow(sides[0], sides[1], &result);
    else if (op == TSR_JINJA_SUB)
        too_large = __builtin_sub_overflow(sides[0], sides[1], &result);
    else if (op == TSR_JINJA_MUL)
        too_large = __builtin_mul_overflow(sides[0], sides[1], &result);
    else if (op == TSR_JINJA_POW)
        return int_power(run, sides[0], sides[1], ret_value);
    else
        return int_division(run, op, sides, ret_value);
    if (too_large)
        return overflow(run);
    *ret_value = tsr_jinja_int(result);
    return TSR_OK;
}

/* What Python's float_divmod does, sign of zero included. */
static double float_floor(double a, double b, double *ret_mod)
{
    double mod = fmod(a, b);
    double quotient = (a - mod) / b;
    if (mod != 0.0 && (b < 0.0) != (mod < 0.0)) {
        mod += b;
        quotient -= 1.0;
    } else if (mod == 0.0) {
        mod = copysign(0.0, b);
    }
    double whole = copysign(0.0, a / b);
    if (quotient != 0.0) {
        whole = floor(quotient);
        whole += quotient - whole > 0.5 ? 1.0 : 0.0;
    }
    *ret_mod = mod;
    return whole;
}

static tsr_status float_binary(tsr_jinja_run *run, tsr_jinja_operator op, const double *sides,
                               tsr_jinja_value *ret_value)
{
    const double a = sides[0];
    const double b = sides[1];
    double result = 0.0;
    if (op == TSR_JINJA_POW)
        return float_power(run, a, b, ret_value);
    if (op == TSR_JINJA_ADD) {
        result = a + b;
    } else if (op == TSR_JINJA_SUB) {
        result = a - b;
    } else if (op == TSR_JINJA_MUL) {
        result = a * b;
    } else if (b == 0.0) {
        return by_zero(run);
    } else if (op == TSR_JINJA_DIV) {
        result = a / b;
    } else {
        double mod = 0.0;
        const double whole = float_floor(a, b, &mod);
        result = op == TSR_JINJA_MOD ? mod : whole;
    }
    *ret_value = tsr_jinja_float(result);
    return TSR_OK;
}

tsr_status tsr_jinja_escape(tsr_jinja_run *run, tsr_jinja_text text, tsr_text *out)
{
    static const char marks[] = "&<>'\"";
    static const char *const names[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
    tsr_status st = TSR_OK;
    for (size_t at = 0; at < text.count && st == TSR_OK; at++) {
        const char *mark = text.bytes[at] == '\0' ? NULL : strchr(marks, text.bytes[at]);
        st = mark != NULL ? tsr_jinja_add_string(run, out, names[mark - marks])
                          : tsr_jinja_add(run, out, tsr_jinja_text_part(text, at, at + 1));
    }
    return st;
}

/* Beside safe text, other text gets escaped. */
static tsr_status join_texts(tsr_jinja_run *run, const tsr_jinja_value *sides,
                             tsr_jinja_value *ret_value)
{
    const bool safe = sides[0].safe || sides[1].safe;
    tsr_text built = {0};
    tsr_status st = TSR_OK;
    for (size_t i = 0; i < 2 && st == TSR_OK; i++)
        st = safe && !sides[i].safe ? tsr_jinja_escape(run, sides[i].as.text, &built)
                                    : tsr_jinja_add(run, &built, sides[i].as.text);
    st = tsr_jinja_built(run, st, &built, ret_value);
    if (st == TSR_OK)
        ret_value->safe = safe;
    return st;
}

static tsr_status join_lists(tsr_jinja_run *run, const tsr_jinja_list *a, const tsr_jinja_list *b,
                             tsr_jinja_value *ret_value)
{
    tsr_jinja_list *list = NULL;
    const tsr_status st = tsr_jinja_list_new(run, a->kind, a->count + b->count, &list);
    if (st != TSR_OK)
        return st;
    if (a->count > 0)
        memcpy(list->items, a->items, a->count * sizeof(*a->items));
    if (b->count > 0)
        memcpy(list->items + a->count, b->items, b->count * sizeof(*b->items));
    *ret_value = tsr_jinja_list_value(list);
    return TSR_OK;
}

static tsr_status repeat_text(tsr_jinja_run *run, tsr_jinja_value text, int64_t times,
                              tsr_jinja_value *ret_value)
{
    tsr_text built = {0};
    tsr_status st = TSR_OK;
    if (text.as.text.count > 0 && times > TSR_JINJA_OUTPUT_MOST / (int64_t)text.as.text.count)
        return tsr_jinja_fail(run, "a text of more than %d bytes", TSR_JINJA_OUTPUT_MOST);
    for (int64_t i = 0; i < times && st == TSR_OK && text.as.text.count > 0; i++) {
        st = tsr_jinja_spend(run, 1);
        if (st == TSR_OK)
            st = tsr_jinja_add(run, &built, text.as.text);
    }
    st = tsr_jinja_built(run, st, &built, ret_value);
    if (st == TSR_OK)
        ret_value->safe = text.safe;
    return st;
}

static tsr_status repeat_list(tsr_jinja_run *run, const tsr_jinja_list *list, int64_t times,
                              tsr_jinja_value *ret_value)
{
    tsr_jinja_list *repeated = NULL;
    const size_t rounds = times < 0 || list->count == 0 ? 0 : (size_t)times;
    if (rounds > 0 && list->count > TSR_JINJA_MEMORY_MOST / rounds)
        return tsr_jinja_fail(run, "a list of too many items");
    const tsr_status st = tsr_jinja_list_new(run, list->kind, list->count * rounds, &repeated);
    if (st != TSR_OK)
        return st;
    for (size_t i = 0; i < rounds; i++)
        memcpy(repeated->items + i * list->count, list->items, list->count * sizeof(*list->items));
    *ret_value = tsr_jinja_list_value(repeated);
    return TSR_OK;
}

/* list or tuple: what + and * work on. */
static bool is_joinable(tsr_jinja_value value)
{
    return value.kind == TSR_JINJA_LIST && value.as.list->kind <= TSR_JINJA_TUPLE;
}

static tsr_status repeat(tsr_jinja_run *run, const tsr_jinja_value *sides,
                         tsr_jinja_value *ret_value)
{
    int64_t times = 0;
    for (size_t i = 0; i < 2; i++) {
        if (!tsr_jinja_is_whole(sides[1 - i], &times))
            continue;
        if (sides[i].kind == TSR_JINJA_TEXT)
            return repeat_text(run, sides[i], times, ret_value);
        if (is_joinable(sides[i]))
            return repeat_list(run, sides[i].as.list, times, ret_value);
    }
    return mismatch(run, TSR_JINJA_MUL, sides);
}

tsr_status tsr_jinja_binary(tsr_jinja_run *run, tsr_jinja_operator op, const tsr_jinja_value *sides,
                            tsr_jinja_value *ret_value)
{
    for (size_t i = 0; i < 2; i++) {
        if (sides[i].kind == TSR_JINJA_UNDEFINED)
            return tsr_jinja_fail_undefined(run, sides[i].as.undefined);
    }
    int64_t wholes[2];
    double numbers[2];
    if (tsr_jinja_is_whole(sides[0], &wholes[0]) && tsr_jinja_is_whole(sides[1], &wholes[1]))
        return int_binary(run, op, wholes, ret_value);
    if (tsr_jinja_is_number(sides[0], &numbers[0]) && tsr_jinja_is_number(sides[1], &numbers[1]))
        return float_binary(run, op, numbers, ret_value);
    if (op == TSR_JINJA_ADD && sides[0].kind == TSR_JINJA_TEXT && sides[1].kind == TSR_JINJA_TEXT)
        return join_texts(run, sides, ret_value);
    if (op == TSR_JINJA_ADD && is_joinable(sides[0]) && is_joinable(sides[1]) &&
        sides[0].as.list->kind == sides[1].as.list->kind)
        return join_lists(run, sides[0].as.list, sides[1].as.list, ret_value);
    if (op == TSR_JINJA_MUL)
        return repeat(run, sides, ret_value);
    return mismatch(run, op, sides);
}

tsr_status tsr_jinja_unary(tsr_jinja_run *run, tsr_jinja_operator op, tsr_jinja_value operand,
                           tsr_jinja_value *ret_value)
{
    int64_t whole = 0;
    if (operand.kind == TSR_JINJA_UNDEFINED)
        return tsr_jinja_fail_undefined(run, operand.as.undefined);
    if (operand.kind == TSR_JINJA_FLOAT) {
        *ret_value = tsr_jinja_float(op == TSR_JINJA_SUB ? -operand.as.number : operand.as.number);
        return TSR_OK;
    }
    if (!tsr_jinja_is_whole(operand, &whole))
        return tsr_jinja_fail(run, "'%s' in front of %s", op == TSR_JINJA_SUB ? "-" : "+",
                              tsr_jinja_type_name(operand));
    if (op == TSR_JINJA_SUB && __builtin_sub_overflow(0, whole, &whole))
        return overflow(run);
    *ret_value = tsr_jinja_int(whole);
    return TSR_OK;
}
