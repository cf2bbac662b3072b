/* One way for each member. */
#include "runtime/text/grammar/grammar.h"

#include "runtime/text/grammar/calls.h"
#include "runtime/text/grammar/regex.h"
#include "runtime/text/grammar/schema.h"

enum { MOST_CHOICES = 4096 };

static int32_t choice_of(tsr_grammar_program *p, const json_t *choice)
{
    int32_t any = TSR_NODE_NEVER;

    if (!json_is_array(choice) || json_array_size(choice) == 0 ||
        json_array_size(choice) > MOST_CHOICES)
        tsr_program_refuse(p, "expected a list of 1 to %d texts", MOST_CHOICES);
    for (size_t i = 0; i < json_array_size(choice); i++) {
        const json_t *one = json_array_get(choice, i);
        if (json_string_length(one) == 0)
            tsr_program_refuse(p, "element %zu is no text, or empty", i);
        any = tsr_add_split(
            p, tsr_add_text(p, json_string_value(one), json_string_length(one), TSR_NODE_RETURN),
            any);
    }
    return any;
}

static int32_t calls_of(tsr_json_parts *parts, const json_t *calls)
{
    const json_int_t style = json_integer_value(json_object_get(calls, "style"));
    const tsr_call_choice choice = {.style = (tsr_call_style)style,
                                    .tools = json_object_get(calls, "tools"),
                                    .many = json_is_true(json_object_get(calls, "many"))};

    if (style < TSR_CALLS_JSON || style > TSR_CALLS_ARGUMENT || !json_is_array(choice.tools)) {
        tsr_program_refuse(parts->program, "calls of tools in no known style");
        return TSR_NODE_NEVER;
    }
    return tsr_calls_of(parts, &choice, TSR_NODE_RETURN);
}

static int32_t answer_of(tsr_json_parts *parts, const json_t *wanted)
{
    tsr_grammar_program *p = parts->program;
    const json_t *given = NULL;

    if ((given = json_object_get(wanted, "json")) != NULL)
        return tsr_schema_value(parts, given, TSR_NODE_RETURN);
    if (json_is_true(json_object_get(wanted, "json_object")))
        return tsr_json_object(parts, TSR_NODE_RETURN);
    if ((given = json_object_get(wanted, "choice")) != NULL)
        return choice_of(p, given);
    if ((given = json_object_get(wanted, "calls")) != NULL)
        return calls_of(parts, given);
    if (json_is_string(given = json_object_get(wanted, "regex")))
        return tsr_regex_text(p, json_string_value(given), TSR_NODE_RETURN);
    tsr_program_refuse(p, "it is nothing that an answer can be held to");
    return TSR_NODE_NEVER;
}

tsr_status tsr_grammar_compile(const json_t *wanted, tsr_grammar_program *ret_program)
{
    tsr_grammar_program *p = ret_program;

    tsr_program_begin(p);
    tsr_json_parts parts = tsr_json_parts_of(p);
    /* Models begin JSON, and whatever comes behind a thought, with a line end or two. */
    const int32_t bare = answer_of(&parts, wanted);
    const int32_t spaced = tsr_json_space(&parts, bare);
    const bool is_text =
        json_object_get(wanted, "choice") != NULL || json_object_get(wanted, "regex") != NULL;
    int32_t start = is_text && json_object_get(wanted, "after") == NULL ? bare : spaced;
    if (json_is_true(json_object_get(wanted, "thinks")) && bare != TSR_NODE_NEVER) {
        const int32_t thought = tsr_text_until(&parts, tsr_think_close, spaced);
        start = tsr_add_split(p, tsr_add_word(p, tsr_think_open, thought), start);
    }
    return tsr_program_end(p, start);
}
