#include "runtime/text/jinja/run.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { PIECE_BYTES = 16 * 1024, ALIGNMENT = 16 };

tsr_status tsr_jinja_fail(tsr_jinja_run *run, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(run->error, sizeof(run->error), format, args);
    va_end(args);
    return TSR_ERR_ARG;
}

tsr_status tsr_jinja_fail_undefined(tsr_jinja_run *run, const tsr_jinja_undefined *undefined)
{
    const int shown = undefined->name.count < 100 ? (int)undefined->name.count : 100;
    if (undefined->hint != NULL)
        return tsr_jinja_fail(run, "%s", undefined->hint);
    if (undefined->owner != NULL)
        return tsr_jinja_fail(run, "a value of type %s has no attribute '%.*s'", undefined->owner,
                              shown, undefined->name.bytes);
    return tsr_jinja_fail(run, "'%.*s' is undefined", shown, undefined->name.bytes);
}

tsr_status tsr_jinja_spend(tsr_jinja_run *run, size_t steps)
{
    if (steps > INT32_MAX || (int64_t)steps > run->steps_left)
        return tsr_jinja_fail(run, "the template takes more than %d steps", TSR_JINJA_STEPS_MOST);
    run->steps_left -= (int64_t)steps;
    return TSR_OK;
}

tsr_status tsr_jinja_enter(tsr_jinja_run *run)
{
    if (run->depth == TSR_JINJA_DEPTH_MOST)
        return tsr_jinja_fail(run, "nested deeper than %d", TSR_JINJA_DEPTH_MOST);
    run->depth++;
    return TSR_OK;
}

void tsr_jinja_leave(tsr_jinja_run *run)
{
    run->depth--;
}

tsr_status tsr_jinja_alloc(tsr_jinja_run *run, size_t count, size_t size, void **ret_memory)
{
    if (size != 0 && count > TSR_JINJA_MEMORY_MOST / size)
        return tsr_jinja_fail(run, "the template takes more than %d bytes", TSR_JINJA_MEMORY_MOST);
    const size_t bytes = (count * size + ALIGNMENT) / ALIGNMENT * ALIGNMENT;
    if (bytes > run->memory_left)
        return tsr_jinja_fail(run, "the template takes more than %d bytes", TSR_JINJA_MEMORY_MOST);
    run->memory_left -= bytes;

    if (bytes > PIECE_BYTES / 4) {
        *ret_memory = tsr_arena_alloc(run->arena, bytes);
        return *ret_memory != NULL ? TSR_OK : TSR_ERR_MEMORY;
    }
    if (bytes > run->spare_bytes) {
        run->spare_bytes = 0;
        run->spare = tsr_arena_alloc(run->arena, PIECE_BYTES);
        if (run->spare == NULL)
            return TSR_ERR_MEMORY;
        run->spare_bytes = PIECE_BYTES;
    }
    *ret_memory = run->spare;
    run->spare += bytes;
    run->spare_bytes -= bytes;
    return TSR_OK;
}

tsr_status tsr_jinja_add(tsr_jinja_run *run, tsr_text *out, tsr_jinja_text text)
{
    if (text.count > TSR_JINJA_OUTPUT_MOST || out->count > TSR_JINJA_OUTPUT_MOST - text.count)
        return tsr_jinja_fail(run, "a text of more than %d bytes", TSR_JINJA_OUTPUT_MOST);
    const tsr_status st = tsr_jinja_spend(run, text.count / 64);
    return st == TSR_OK ? tsr_text_add(out, text.bytes, text.count) : st;
}

tsr_status tsr_jinja_add_string(tsr_jinja_run *run, tsr_text *out, const char *string)
{
    return tsr_jinja_add(run, out, tsr_jinja_text_of(string));
}

tsr_status tsr_jinja_built(tsr_jinja_run *run, tsr_status st, tsr_text *built,
                           tsr_jinja_value *ret_value)
{
    void *copy = NULL;
    const size_t count = built->count;
    if (st == TSR_OK)
        st = tsr_jinja_alloc(run, count + 1, 1, &copy);
    if (copy != NULL) {
        if (count > 0)
            memcpy(copy, built->bytes, count);
        *ret_value = tsr_jinja_text_value((tsr_jinja_text){.bytes = copy, .count = count});
    }
    tsr_text_close(built);
    return st;
}

static tsr_status undefined(tsr_jinja_run *run, const tsr_jinja_undefined *why,
                            tsr_jinja_value *ret_value)
{
    void *memory = NULL;
    const tsr_status st = tsr_jinja_alloc(run, 1, sizeof(*why), &memory);
    if (memory == NULL)
        return st;
    memcpy(memory, why, sizeof(*why));
    *ret_value = (tsr_jinja_value){.kind = TSR_JINJA_UNDEFINED, .as.undefined = memory};
    return TSR_OK;
}

tsr_status tsr_jinja_undefined_hint(tsr_jinja_run *run, const char *hint,
                                    tsr_jinja_value *ret_value)
{
    return undefined(run, &(tsr_jinja_undefined){.hint = hint}, ret_value);
}

tsr_status tsr_jinja_undefined_name(tsr_jinja_run *run, const char *owner, tsr_jinja_text name,
                                    tsr_jinja_value *ret_value)
{
    return undefined(run, &(tsr_jinja_undefined){.owner = owner, .name = name}, ret_value);
}

const tsr_jinja_builtin *tsr_jinja_find_row(const tsr_jinja_builtin *rows, tsr_jinja_text name)
{
    for (; rows->name != NULL; rows++) {
        if (tsr_jinja_text_is(name, rows->name))
            return rows;
    }
    return NULL;
}

/* The parameter an argument's name stands for, `count` when there is none. */
static size_t parameter_of(const tsr_jinja_builtin *builtin, tsr_jinja_text name)
{
    size_t i = 0;
    while (i < builtin->count &&
           (builtin->names[i][0] == '\0' || !tsr_jinja_text_is(name, builtin->names[i])))
        i++;
    return i;
}

tsr_status tsr_jinja_builtin_call(tsr_jinja_run *run, const tsr_jinja_builtin *builtin,
                                  tsr_jinja_value self, const tsr_jinja_args *args,
                                  tsr_jinja_value *ret_value)
{
    tsr_jinja_call call = {.run = run, .self = self, .args = args};
    tsr_status st = TSR_OK;
    if (self.kind == TSR_JINJA_TEXT)
        st = tsr_jinja_spend(run, self.as.text.count / 32); /* most look at every byte of it */
    if (st != TSR_OK)
        return st;
    if (builtin->count == TSR_JINJA_ANY)
        return builtin->function(&call, ret_value);

    const size_t positional = args->count - args->named;
    if (positional > builtin->count)
        return tsr_jinja_fail(run, "%s takes no more than %d arguments", builtin->name,
                              builtin->count);
    for (size_t i = 0; i < positional; i++)
        call.slots[i] = args->values[i];
    for (size_t i = 0; i < args->named; i++) {
        const size_t slot = parameter_of(builtin, args->names[i]);
        if (slot == builtin->count || call.slots[slot].kind != TSR_JINJA_MISSING)
            return tsr_jinja_fail(run, "%s does not take the argument '%.*s' here", builtin->name,
                                  (int)args->names[i].count, args->names[i].bytes);
        call.slots[slot] = args->values[positional + i];
    }
    for (size_t i = 0; i < builtin->required; i++) {
        if (call.slots[i].kind == TSR_JINJA_MISSING)
            return tsr_jinja_fail(run, "%s needs %d arguments", builtin->name, builtin->required);
    }
    return builtin->function(&call, ret_value);
}
