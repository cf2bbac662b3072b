/*
 * Around arguments stands what the model was trained on, letter by letter. An argument in bare text
 * ends where its closing tag does, so it is any text that has none of the tags in it:
 *
 *   text, states by how much of a tag has come      < -> </ -> </p ... -> </parameter>   the end
 *                                                     any other character leads back
 */
#include "runtime/text/grammar/calls.h"

#include "runtime/text/grammar/schema_parts.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_STATES = 64, MOST_TAGS = 3 };

/* Tags that end a bare text, or must not stand in it: the first is its end. */
typedef struct tag_list {
    const char *tag[MOST_TAGS];
    size_t count;
} tag_list;

static const tag_list function_tags = {{"</parameter>", "<parameter=", "</function>"}, 3};
static const tag_list argument_tags = {{"</arg_value>"}, 1};

/* What has come of tags: a beginning of one of them. */
typedef struct tag_state {
    const char *tag;
    size_t count;
} tag_state;

typedef struct tag_machine {
    const tag_list *tags;
    tag_state state[MOST_STATES];
    int32_t hole[MOST_STATES];
    size_t states;
} tag_machine;

static void find_states(tag_machine *m)
{
    m->state[m->states++] = (tag_state){m->tags->tag[0], 0};
    for (size_t t = 0; t < m->tags->count; t++) {
        const char *tag = m->tags->tag[t];
        for (size_t count = 1; count < strlen(tag) && m->states < MOST_STATES; count++) {
            bool known = false;
            for (size_t i = 0; i < m->states; i++)
                known = known ||
                        (m->state[i].count == count && memcmp(m->state[i].tag, tag, count) == 0);
            if (!known)
                m->state[m->states++] = (tag_state){tag, count};
        }
    }
}

/* The state whose text is the longest end of `from` and `c`; `next` where that is the closing tag,
 * nothing where it is another. */
static int32_t target(const tag_machine *m, const tag_state *from, char c, int32_t next)
{
    char text[MOST_STATES];
    const size_t count = from->count + 1;
    size_t best = 0;

    memcpy(text, from->tag, from->count);
    text[from->count] = c;
    for (size_t t = 0; t < m->tags->count; t++) {
        const size_t tag = strlen(m->tags->tag[t]);
        if (tag <= count && memcmp(m->tags->tag[t], text + count - tag, tag) == 0)
            return t == 0 ? next : TSR_NODE_NEVER;
    }
    for (size_t i = 0; i < m->states; i++) {
        const tag_state *s = &m->state[i];
        if (s->count <= count && s->count > m->state[best].count &&
            memcmp(s->tag, text + count - s->count, s->count) == 0)
            best = i;
    }
    return m->hole[best];
}

static int32_t bare_text(tsr_json_parts *parts, const tag_list *tags, int32_t next)
{
    tsr_grammar_program *p = parts->program;
    tag_machine m = {.tags = tags};
    tsr_byte_set others = {0};

    find_states(&m);
    for (size_t i = 0; i < m.states; i++)
        m.hole[i] = tsr_add_hole(p);
    tsr_byte_add(&others, '\t', '\n');
    tsr_byte_add(&others, '\r', '\r');
    tsr_byte_add(&others, ' ', 0x7f);
    for (size_t t = 0; t < tags->count; t++) {
        for (const char *c = tags->tag[t]; *c != '\0'; c++)
            others.bits[(unsigned char)*c >> 5] &= ~(1U << ((unsigned char)*c & 31));
    }
    const int32_t away =
        tsr_add_split(p, tsr_add_set(p, &others, m.hole[0]), tsr_json_wide_character(p, m.hole[0]));
    for (size_t i = 0; i < m.states; i++) {
        tsr_byte_set done = others;
        int32_t any = away;
        for (size_t t = 0; t < tags->count; t++) {
            for (const char *c = tags->tag[t]; *c != '\0'; c++) {
                if (tsr_byte_in(&done, (unsigned char)*c))
                    continue;
                tsr_byte_add(&done, (unsigned char)*c, (unsigned char)*c);
                any = tsr_add_split(p,
                                    tsr_add_bytes(p, (unsigned char)*c, (unsigned char)*c,
                                                  target(&m, &m.state[i], *c, next)),
                                    any);
            }
        }
        tsr_fill_hole(p, m.hole[i], any, TSR_NODE_NEVER);
    }
    return m.hole[0];
}

int32_t tsr_text_until(tsr_json_parts *parts, const char *tag, int32_t next)
{
    const tag_list tags = {{tag}, 1};

    return bare_text(parts, &tags, next);
}

/* True where an argument is bare text, as the parser of answers sees it. */
static bool is_bare(const json_t *schema)
{
    const json_t *type = json_object_get(schema, "type");
    const char *name = json_string_value(json_is_array(type) ? json_array_get(type, 0) : type);

    return name != NULL && strcmp(name, "string") == 0;
}

static int32_t bare_values(tsr_schema_reader *r, const json_t *schema, const char *close,
                           int32_t next)
{
    tsr_grammar_program *p = r->parts->program;
    const json_t *only = json_object_get(schema, "const");
    const json_t *list = json_object_get(schema, "enum");
    int32_t any = TSR_NODE_NEVER;

    for (size_t i = 0; i < (only != NULL ? 1 : json_array_size(list)); i++) {
        const json_t *value = only != NULL ? only : json_array_get(list, i);
        if (json_is_string(value))
            any = tsr_add_split(p,
                                tsr_add_text(p, json_string_value(value), json_string_length(value),
                                             tsr_add_word(p, close, next)),
                                any);
    }
    return any;
}

/* A value, and the tag that closes it. */
static int32_t write_value(tsr_schema_reader *r, const json_t *schema, tsr_call_style style,
                           const tsr_schema_place *place, int32_t next)
{
    const bool lines = style == TSR_CALLS_FUNCTION;
    const char *close = lines ? "\n</parameter>" : "</arg_value>";
    tsr_grammar_program *p = r->parts->program;

    if (!is_bare(schema))
        return tsr_schema_part(r, schema, place, tsr_add_word(p, close, next));
    const unsigned kinds = tsr_schema_keywords(r, schema, place);
    if ((kinds & TSR_KEYWORD_STRING) != 0)
        tsr_schema_refuse(r, place,
                          "what limits a string is not served where the model writes "
                          "arguments as bare text");
    if ((kinds & TSR_KEYWORD_VALUES) != 0)
        return bare_values(r, schema, close, next);
    return bare_text(r->parts, lines ? &function_tags : &argument_tags, next);
}

static bool is_required(const json_t *parameters, const char *name)
{
    const json_t *required = json_object_get(parameters, "required");

    for (size_t i = 0; i < json_array_size(required); i++) {
        const char *one = json_string_value(json_array_get(required, i));
        if (one != NULL && strcmp(one, name) == 0)
            return true;
    }
    return false;
}

static int32_t write_argument(tsr_schema_reader *r, const char *name, const json_t *schema,
                              tsr_call_style style, int32_t next)
{
    const tsr_schema_place root = tsr_schema_inside(NULL, NULL, 0);
    const tsr_schema_place properties = tsr_schema_inside(&root, "properties", 0);
    const tsr_schema_place place = tsr_schema_inside(&properties, name, 0);
    const bool lines = style == TSR_CALLS_FUNCTION;
    tsr_grammar_program *p = r->parts->program;
    int32_t at = write_value(r, schema, style, &place, tsr_add_word(p, "\n", next));

    if (strpbrk(name, "<>\n") != NULL)
        tsr_schema_refuse(r, &place, "a name with <, > or a line end cannot be written");
    at = tsr_add_word(p, lines ? ">\n" : "</arg_key>\n<arg_value>", at);
    at = tsr_add_word(p, name, at);
    return tsr_add_word(p, lines ? "<parameter=" : "<arg_key>", at);
}

/* Arguments one after the other, each in tags, in the order of the schema. */
static int32_t write_tagged(tsr_schema_reader *r, const json_t *parameters, tsr_call_style style,
                            int32_t next)
{
    const tsr_schema_place root = tsr_schema_inside(NULL, NULL, 0);
    const json_t *properties = json_object_get(parameters, "properties");
    const size_t count = json_object_size(properties);
    const char **names = calloc(count + 1, sizeof(*names));
    const char *name = NULL;
    const json_t *value = NULL;
    size_t n = 0;
    int32_t at = next;

    if (names == NULL) {
        r->parts->program->status = TSR_ERR_MEMORY;
        return TSR_NODE_NEVER;
    }
    if ((tsr_schema_keywords(r, parameters, &root) &
         ~(unsigned)(TSR_KEYWORD_TELLS | TSR_KEYWORD_TYPE | TSR_KEYWORD_OBJECT)) != 0)
        tsr_schema_refuse(r, &root,
                          "parameters other than an object with properties are not "
                          "served for this model");
    json_object_foreach((json_t *)(uintptr_t)properties, name, value) names[n++] = name;
    for (size_t i = n; i-- > 0;) {
        const int32_t one =
            write_argument(r, names[i], json_object_get(properties, names[i]), style, at);
        at = tsr_add_split(r->parts->program, one,
                           is_required(parameters, names[i]) ? TSR_NODE_NEVER : at);
    }
    free(names);
    return at;
}

static int32_t write_arguments(tsr_json_parts *parts, const json_t *parameters,
                               tsr_call_style style, int32_t next)
{
    const tsr_schema_place root = tsr_schema_inside(NULL, NULL, 0);
    tsr_schema_reader r;

    tsr_schema_begin(&r, parts, parameters);
    const int32_t at = style == TSR_CALLS_JSON ? tsr_schema_part(&r, parameters, &root, next)
                                               : write_tagged(&r, parameters, style, next);
    tsr_schema_end(&r);
    return at;
}

/* What stands around the arguments: before the name, behind it, and behind them. */
static const char *const around[][3] = {
    [TSR_CALLS_NONE] = {"", "", ""},
    [TSR_CALLS_JSON] = {"<tool_call>\n{\"name\": \"", "\", \"arguments\": ", "}\n</tool_call>"},
    [TSR_CALLS_FUNCTION] = {"<tool_call>\n<function=", ">\n", "</function>\n</tool_call>"},
    [TSR_CALLS_ARGUMENT] = {"<tool_call>", "\n", "</tool_call>"},
};

static int32_t write_call(tsr_json_parts *parts, const json_t *tool, tsr_call_style style,
                          int32_t next)
{
    tsr_grammar_program *p = parts->program;
    const char *name = json_string_value(json_object_get(tool, "name"));
    const json_t *parameters = json_object_get(tool, "parameters");
    json_t *none = json_pack("{s:s, s:{}}", "type", "object", "properties");

    if (name == NULL || strpbrk(name, "<>\"\\\n") != NULL || none == NULL) {
        tsr_program_refuse(p, "a tool without a name, or with one that no call can have");
        json_decref(none);
        return TSR_NODE_NEVER;
    }
    const bool given = json_is_object(parameters) && json_object_size(parameters) > 0;
    int32_t at = tsr_add_word(p, around[style][2], next);
    at = write_arguments(parts, given ? parameters : none, style, at);
    at = tsr_add_word(p, around[style][1], at);
    at = tsr_add_word(p, name, at);
    json_decref(none);
    return tsr_add_word(p, around[style][0], at);
}

int32_t tsr_calls_of(tsr_json_parts *parts, const tsr_call_choice *choice, int32_t next)
{
    tsr_grammar_program *p = parts->program;
    const int32_t behind = tsr_add_hole(p);
    int32_t any = TSR_NODE_NEVER;

    for (size_t i = 0; i < json_array_size(choice->tools); i++)
        any = tsr_add_split(
            p, write_call(parts, json_array_get(choice->tools, i), choice->style, behind), any);
    tsr_fill_hole(p, behind, next,
                  choice->many && any != TSR_NODE_NEVER ? tsr_add_word(p, "\n", any)
                                                        : TSR_NODE_NEVER);
    return any;
}
