/* Filters on single values, and the table's front door. */
#include "runtime/text/jinja/run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef tsr_jinja_value value;

static bool given(value v)
{
    return v.kind != TSR_JINJA_MISSING;
}

static tsr_status filter_length(tsr_jinja_call *call, value *ret)
{
    size_t length = 0;
    if (!tsr_jinja_len(call->self, &length))
        return tsr_jinja_fail(call->run, "a value of type %s has no length",
                              tsr_jinja_type_name(call->self));
    *ret = tsr_jinja_int((int64_t)length);
    return tsr_jinja_spend(call->run, length / 64);
}

static tsr_status filter_default(tsr_jinja_call *call, value *ret)
{
    const bool falsy =
        given(call->slots[1]) && tsr_jinja_truth(call->slots[1]) && !tsr_jinja_truth(call->self);
    *ret = call->self;
    if (call->self.kind == TSR_JINJA_UNDEFINED || falsy)
        *ret = given(call->slots[0]) ? call->slots[0] : tsr_jinja_text_value(tsr_jinja_text_of(""));
    return TSR_OK;
}

static tsr_status filter_abs(tsr_jinja_call *call, value *ret)
{
    int64_t whole = 0;
    if (call->self.kind == TSR_JINJA_FLOAT) {
        *ret = tsr_jinja_float(fabs(call->self.as.number));
        return TSR_OK;
    }
    if (!tsr_jinja_is_whole(call->self, &whole))
        return tsr_jinja_fail(call->run, "abs of %s", tsr_jinja_type_name(call->self));
    return tsr_jinja_unary(call->run, whole < 0 ? TSR_JINJA_SUB : TSR_JINJA_ADD, call->self, ret);
}

static tsr_status int_of_float(tsr_jinja_call *call, double number, value *ret)
{
    if (!(fabs(number) < 9.2e18))
        return tsr_jinja_fail(call->run, "an integer beyond 64 bits is not supported");
    *ret = tsr_jinja_int((int64_t)number);
    return TSR_OK;
}

/* "42.23" is 42 too. */
static tsr_status int_of_text(tsr_jinja_call *call, int base, value *ret)
{
    int64_t integer = 0;
    double number = 0.0;
    const tsr_jinja_reading reading = tsr_jinja_read_int(call->self.as.text, base, &integer);
    if (reading == TSR_JINJA_BEYOND_64_BITS)
        return tsr_jinja_fail(call->run, "an integer beyond 64 bits is not supported");
    if (reading == TSR_JINJA_READ)
        *ret = tsr_jinja_int(integer);
    else if (tsr_jinja_read_float(call->self.as.text, &number) && isfinite(number))
        return int_of_float(call, number, ret);
    return TSR_OK;
}

static tsr_status filter_int(tsr_jinja_call *call, value *ret)
{
    int64_t whole = 0;
    int64_t base = 10;
    *ret = given(call->slots[0]) ? call->slots[0] : tsr_jinja_int(0);
    if (given(call->slots[1]) &&
        (!tsr_jinja_is_whole(call->slots[1], &base) || base < 2 || base > 36))
        return tsr_jinja_fail(call->run, "int needs a base from 2 to 36");
    if (call->self.kind == TSR_JINJA_UNDEFINED)
        return tsr_jinja_fail_undefined(call->run, call->self.as.undefined);
    if (call->self.kind == TSR_JINJA_TEXT)
        return int_of_text(call, (int)base, ret);
    if (tsr_jinja_is_whole(call->self, &whole))
        *ret = tsr_jinja_int(whole);
    else if (call->self.kind == TSR_JINJA_FLOAT && !isnan(call->self.as.number))
        return int_of_float(call, call->self.as.number, ret);
    return TSR_OK;
}

static tsr_status filter_float(tsr_jinja_call *call, value *ret)
{
    double number = 0.0;
    *ret = given(call->slots[0]) ? call->slots[0] : tsr_jinja_float(0.0);
    if (call->self.kind == TSR_JINJA_UNDEFINED)
        return tsr_jinja_fail_undefined(call->run, call->self.as.undefined);
    if (tsr_jinja_is_number(call->self, &number) ||
        (call->self.kind == TSR_JINJA_TEXT && tsr_jinja_read_float(call->self.as.text, &number)))
        *ret = tsr_jinja_float(number);
    return TSR_OK;
}

/* To the nearest decimal, halves to even, as printf does it exactly. */
static double round_decimal(double number, int precision)
{
    char text[400];
    if (!isfinite(number))
        return number;
    (void)snprintf(text, sizeof(text), "%.*f", precision, number);
    return strtod(text, NULL);
}

static tsr_status filter_round(tsr_jinja_call *call, value *ret)
{
    int64_t precision = 0;
    double number = 0.0;
    tsr_jinja_text method = tsr_jinja_text_of("common");
    if (given(call->slots[0]) && !tsr_jinja_is_whole(call->slots[0], &precision))
        return tsr_jinja_fail(call->run, "round needs an integer precision");
    if (given(call->slots[1]) && call->slots[1].kind == TSR_JINJA_TEXT)
        method = call->slots[1].as.text;
    if (precision < 0 || precision > 60)
        return tsr_jinja_fail(call->run,
                              "round to a precision outside of 0 to 60 is not supported");
    if (!tsr_jinja_is_number(call->self, &number))
        return tsr_jinja_fail(call->run, "round of %s", tsr_jinja_type_name(call->self));

    int64_t whole = 0;
    const double scale = pow(10.0, (double)precision);
    if (tsr_jinja_text_is(method, "common") && tsr_jinja_is_whole(call->self, &whole))
        *ret = tsr_jinja_int(whole);
    else if (tsr_jinja_text_is(method, "common"))
        *ret = tsr_jinja_float(round_decimal(number, (int)precision));
    else if (!isfinite(number))
        return tsr_jinja_fail(call->run, "round of a number that is not finite");
    else if (tsr_jinja_text_is(method, "ceil"))
        *ret = tsr_jinja_float((ceil(number * scale) + 0.0) / scale);
    else if (tsr_jinja_text_is(method, "floor"))
        *ret = tsr_jinja_float((floor(number * scale) + 0.0) / scale);
    else
        return tsr_jinja_fail(call->run, "round knows common, ceil and floor");
    return TSR_OK;
}

/* The indent of one level: so many spaces, or the text itself. */
static tsr_status json_indent(tsr_jinja_call *call, value indent, tsr_jinja_json_options *options)
{
    int64_t spaces = 0;
    value text = indent;
    if (!given(indent) || indent.kind == TSR_JINJA_NONE)
        return TSR_OK;
    options->pretty = true;
    options->item = tsr_jinja_text_of(",");
    if (tsr_jinja_is_whole(indent, &spaces)) {
        const value sides[] = {tsr_jinja_text_value(tsr_jinja_text_of(" ")), tsr_jinja_int(spaces)};
        const tsr_status st = tsr_jinja_binary(call->run, TSR_JINJA_MUL, sides, &text);
        if (st != TSR_OK)
            return st;
    }
    if (text.kind != TSR_JINJA_TEXT)
        return tsr_jinja_fail(call->run, "tojson needs an indent that is a number or a text");
    options->indent = text.as.text;
    return TSR_OK;
}

static tsr_status json_separators(tsr_jinja_call *call, value separators,
                                  tsr_jinja_json_options *options)
{
    tsr_jinja_list pair = {0};
    if (!given(separators) || separators.kind == TSR_JINJA_NONE)
        return TSR_OK;
    const tsr_status st = tsr_jinja_iterate(call->run, separators, &pair);
    if (st != TSR_OK)
        return st;
    if (pair.count != 2 || pair.items[0].kind != TSR_JINJA_TEXT ||
        pair.items[1].kind != TSR_JINJA_TEXT)
        return tsr_jinja_fail(call->run, "tojson needs two texts as separators");
    options->item = pair.items[0].as.text;
    options->key = pair.items[1].as.text;
    return TSR_OK;
}

static tsr_status filter_tojson(tsr_jinja_call *call, value *ret)
{
    tsr_jinja_json_options options = {
        .ascii = given(call->slots[0]) && tsr_jinja_truth(call->slots[0]),
        .sort = given(call->slots[3]) && tsr_jinja_truth(call->slots[3]),
        .indent = tsr_jinja_text_of(""),
        .item = tsr_jinja_text_of(", "),
        .key = tsr_jinja_text_of(": "),
    };
    tsr_text built = {0};
    tsr_status st = json_indent(call, call->slots[1], &options);
    if (st == TSR_OK)
        st = json_separators(call, call->slots[2], &options);
    if (st == TSR_OK)
        st = tsr_jinja_json(call->run, call->self, &options, &built);
    return tsr_jinja_built(call->run, st, &built, ret);
}

const tsr_jinja_builtin *tsr_jinja_find_filter(tsr_jinja_text name)
{
    static const tsr_jinja_builtin rows[] = {
        {"length", filter_length, 0, 0, {""}},
        {"count", filter_length, 0, 0, {""}},
        {"default", filter_default, 0, 2, {"default_value", "boolean"}},
        {"d", filter_default, 0, 2, {"default_value", "boolean"}},
        {"abs", filter_abs, 0, 0, {""}},
        {"int", filter_int, 0, 2, {"default", "base"}},
        {"float", filter_float, 0, 1, {"default"}},
        {"round", filter_round, 0, 2, {"precision", "method"}},
        {"tojson", filter_tojson, 0, 4, {"ensure_ascii", "indent", "separators", "sort_keys"}},
        {0},
    };
    const tsr_jinja_builtin *const tables[] = {
        rows, tsr_jinja_text_filters, tsr_jinja_sequence_filters, tsr_jinja_select_filters};
    for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++) {
        const tsr_jinja_builtin *row = tsr_jinja_find_row(tables[i], name);
        if (row != NULL)
            return row;
    }
    return NULL;
}
