/* `is` tests. */
#include "runtime/text/jinja/run.h"

typedef tsr_jinja_value value;

static tsr_status answer(bool truth, value *ret)
{
    *ret = tsr_jinja_bool(truth);
    return TSR_OK;
}

static tsr_status is_defined(tsr_jinja_call *call, value *ret)
{
    return answer(call->self.kind != TSR_JINJA_UNDEFINED, ret);
}

static tsr_status is_undefined(tsr_jinja_call *call, value *ret)
{
    return answer(call->self.kind == TSR_JINJA_UNDEFINED, ret);
}

static tsr_status is_none(tsr_jinja_call *call, value *ret)
{
    return answer(call->self.kind == TSR_JINJA_NONE, ret);
}

static tsr_status is_boolean(tsr_jinja_call *call, value *ret)
{
    return answer(call->self.kind == TSR_JINJA_BOOL, ret);
}

static tsr_status is_true(tsr_jinja_call *call, value *ret)
{
    return answer(call->self.kind == TSR_JINJA_BOOL && call->self.as.truth, ret);
}

static tsr_status is_false(tsr_jinja_call *call, value *ret)
{
    return answer(call->self.kind == TSR_JINJA_BOOL && !call->self.as.truth, ret);
}

static tsr_status is_integer(tsr_jinja_call *call, value *ret)
{
    return answer(call->self.kind == TSR_JINJA_INT, ret);
}

static tsr_status is_float(tsr_jinja_call *call, value *ret)
{
    return answer(call->self.kind == TSR_JINJA_FLOAT, ret);
}

static tsr_status is_number(tsr_jinja_call *call, value *ret)
{
    double number = 0.0;
    return answer(tsr_jinja_is_number(call->self, &number), ret);
}

static tsr_status is_string(tsr_jinja_call *call, value *ret)
{
    return answer(call->self.kind == TSR_JINJA_TEXT, ret);
}

static tsr_status is_mapping(tsr_jinja_call *call, value *ret)
{
    return answer(call->self.kind == TSR_JINJA_DICT, ret);
}

/* What has a length and can be subscripted: for Jinja also a dict, and even undefined. */
static tsr_status is_sequence(tsr_jinja_call *call, value *ret)
{
    return answer(call->self.kind == TSR_JINJA_TEXT || call->self.kind == TSR_JINJA_DICT ||
                      call->self.kind == TSR_JINJA_UNDEFINED || tsr_jinja_is_sequence(call->self),
                  ret);
}

static tsr_status is_iterable(tsr_jinja_call *call, value *ret)
{
    return answer(call->self.kind == TSR_JINJA_TEXT || call->self.kind == TSR_JINJA_DICT ||
                      call->self.kind == TSR_JINJA_UNDEFINED || call->self.kind == TSR_JINJA_LIST ||
                      call->self.kind == TSR_JINJA_LOOP,
                  ret);
}

/* An undefined value counts: calling it is what raises. */
static tsr_status is_callable(tsr_jinja_call *call, value *ret)
{
    const tsr_jinja_kind kind = call->self.kind;
    return answer(kind == TSR_JINJA_UNDEFINED || kind == TSR_JINJA_MACRO ||
                      kind == TSR_JINJA_METHOD || kind == TSR_JINJA_FUNCTION ||
                      kind == TSR_JINJA_LOOP,
                  ret);
}

static tsr_status remainder_is(tsr_jinja_call *call, value divisor, int64_t wanted, value *ret)
{
    const value sides[] = {call->self, divisor};
    bool equal = false;
    value rest = {0};
    tsr_status st = tsr_jinja_binary(call->run, TSR_JINJA_MOD, sides, &rest);
    if (st == TSR_OK)
        st = tsr_jinja_equal(call->run, rest, tsr_jinja_int(wanted), &equal);
    return st == TSR_OK ? answer(equal, ret) : st;
}

static tsr_status is_odd(tsr_jinja_call *call, value *ret)
{
    return remainder_is(call, tsr_jinja_int(2), 1, ret);
}

static tsr_status is_even(tsr_jinja_call *call, value *ret)
{
    return remainder_is(call, tsr_jinja_int(2), 0, ret);
}

static tsr_status is_divisible(tsr_jinja_call *call, value *ret)
{
    return remainder_is(call, call->slots[0], 0, ret);
}

static tsr_status compares(tsr_jinja_call *call, tsr_jinja_operator op, value *ret)
{
    bool holds = false;
    const tsr_status st = tsr_jinja_compare(call->run, op, call->self, call->slots[0], &holds);
    return st == TSR_OK ? answer(holds, ret) : st;
}

static tsr_status is_equal(tsr_jinja_call *call, value *ret)
{
    return compares(call, TSR_JINJA_EQ, ret);
}

static tsr_status is_not_equal(tsr_jinja_call *call, value *ret)
{
    return compares(call, TSR_JINJA_NE, ret);
}

static tsr_status is_less(tsr_jinja_call *call, value *ret)
{
    return compares(call, TSR_JINJA_LT, ret);
}

static tsr_status is_less_or_equal(tsr_jinja_call *call, value *ret)
{
    return compares(call, TSR_JINJA_LE, ret);
}

static tsr_status is_greater(tsr_jinja_call *call, value *ret)
{
    return compares(call, TSR_JINJA_GT, ret);
}

static tsr_status is_greater_or_equal(tsr_jinja_call *call, value *ret)
{
    return compares(call, TSR_JINJA_GE, ret);
}

static tsr_status is_in(tsr_jinja_call *call, value *ret)
{
    return compares(call, TSR_JINJA_IN, ret);
}

static tsr_status is_lower(tsr_jinja_call *call, value *ret)
{
    tsr_jinja_text text = {0};
    const tsr_status st = tsr_jinja_to_text(call->run, call->self, &text);
    return st == TSR_OK ? answer(tsr_jinja_all_lower(text), ret) : st;
}

static tsr_status is_upper(tsr_jinja_call *call, value *ret)
{
    tsr_jinja_text text = {0};
    const tsr_status st = tsr_jinja_to_text(call->run, call->self, &text);
    return st == TSR_OK ? answer(tsr_jinja_all_upper(text), ret) : st;
}

const tsr_jinja_builtin *tsr_jinja_find_test(tsr_jinja_text name)
{
    static const tsr_jinja_builtin rows[] = {
        {"defined", is_defined, 0, 0, {""}},
        {"undefined", is_undefined, 0, 0, {""}},
        {"none", is_none, 0, 0, {""}},
        {"boolean", is_boolean, 0, 0, {""}},
        {"true", is_true, 0, 0, {""}},
        {"false", is_false, 0, 0, {""}},
        {"integer", is_integer, 0, 0, {""}},
        {"float", is_float, 0, 0, {""}},
        {"number", is_number, 0, 0, {""}},
        {"string", is_string, 0, 0, {""}},
        {"mapping", is_mapping, 0, 0, {""}},
        {"sequence", is_sequence, 0, 0, {""}},
        {"iterable", is_iterable, 0, 0, {""}},
        {"callable", is_callable, 0, 0, {""}},
        {"odd", is_odd, 0, 0, {""}},
        {"even", is_even, 0, 0, {""}},
        {"divisibleby", is_divisible, 1, 1, {"num"}},
        {"lower", is_lower, 0, 0, {""}},
        {"upper", is_upper, 0, 0, {""}},
        {"in", is_in, 1, 1, {"seq"}},
        {"eq", is_equal, 1, 1, {""}},
        {"equalto", is_equal, 1, 1, {""}},
        {"==", is_equal, 1, 1, {""}},
        {"ne", is_not_equal, 1, 1, {""}},
        {"!=", is_not_equal, 1, 1, {""}},
        {"lt", is_less, 1, 1, {""}},
        {"lessthan", is_less, 1, 1, {""}},
        {"<", is_less, 1, 1, {""}},
        {"le", is_less_or_equal, 1, 1, {""}},
        {"<=", is_less_or_equal, 1, 1, {""}},
        {"gt", is_greater, 1, 1, {""}},
        {"greaterthan", is_greater, 1, 1, {""}},
        {">", is_greater, 1, 1, {""}},
        {"ge", is_greater_or_equal, 1, 1, {""}},
        {">=", is_greater_or_equal, 1, 1, {""}},
        {0},
    };
    return tsr_jinja_find_row(rows, name);
}
