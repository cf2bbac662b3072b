/* Sorted by canonical name, so that the plan finds a key by search. Two keys that become one name
 * must say the same: which of them was meant cannot be known. */
#include "runtime/checkpoint/quant_table.h"

#include "runtime/checkpoint/file_fields.h"
#include "runtime/checkpoint/module_name.h"

#include <stdlib.h>
#include <string.h>

enum { LONGEST_NAME = 512, LARGEST_GROUP = 1 << 20 };

tsr_status tsr_quant_name_read(const tsr_fields *fields, const char *member, const char *name,
                               tsr_arena *memory, tsr_quant_name *ret_name)
{
    if (!tsr_name_is_usable(name, LONGEST_NAME))
        return tsr_fields_refuse(fields, member,
                                 "a name is empty, longer than %d bytes or has control characters",
                                 LONGEST_NAME);

    char canonical[LONGEST_NAME + 8];
    tsr_name_canonical_module(name, canonical);

    char *original = tsr_arena_text(memory, name, strlen(name));
    char *copy = original;
    if (original != NULL && strcmp(name, canonical) != 0)
        copy = tsr_arena_text(memory, canonical, strlen(canonical));
    if (original == NULL || copy == NULL)
        return TSR_ERR_MEMORY;

    *ret_name = (tsr_quant_name){original, copy};
    return TSR_OK;
}

/* Most rows repeat the algorithm of the row before (NULL: there is none): one copy serves both. */
static const char *keep_algo(const char *algo, const char *before, tsr_arena *memory)
{
    if (before != NULL && strcmp(before, algo) == 0)
        return before;
    return tsr_arena_text(memory, algo, strlen(algo));
}

/* One row's format: its name is known, its algorithm is not looked at. */
static tsr_status read_format(const tsr_fields *table, const char *name, const json_t *value,
                              tsr_declared *row, const char **ret_algo)
{
    const json_t *algo = json_object_get(value, "quant_algo");
    const json_t *group = json_object_get(value, "group_size");
    const json_t *zero_point = json_object_get(value, "has_zero_point");
    const json_int_t size = json_integer_value(group);
    const char *text = json_string_value(algo);

    if (text == NULL || strlen(text) != json_string_length(algo))
        return tsr_fields_refuse(table, name, "has no quant_algo");
    if (group != NULL && !json_is_null(group) &&
        (!json_is_integer(group) || size < 0 || size > LARGEST_GROUP))
        return tsr_fields_refuse(table, name, "group_size is not a whole number from 0 to %d",
                                 LARGEST_GROUP);
    if (json_is_true(zero_point))
        return tsr_fields_refuse(table, name, "has_zero_point is not supported");

    const tsr_fields fields = {value, name, table->problems};
    const tsr_status st = tsr_file_fields_check(&fields, &tsr_fields_of_quantized_layer, NULL);
    if (st != TSR_OK)
        return st;

    row->group_size = (int32_t)size;
    *ret_algo = text;
    return TSR_OK;
}

static int compare_rows(const void *left, const void *right)
{
    const tsr_declared *a = left;
    const tsr_declared *b = right;
    const int order = strcmp(a->name, b->name);
    return order != 0 ? order : strcmp(a->original, b->original);
}

/* Keeps one of the rows that mean the same module. */
static tsr_status merge_rows(const tsr_fields *fields, const char *member, tsr_declared *rows,
                             size_t *count)
{
    tsr_status st = TSR_OK;
    size_t kept = 0;

    for (size_t i = 0; i < *count; i++) {
        const tsr_declared *before = kept > 0 ? &rows[kept - 1] : NULL;
        if (before == NULL || strcmp(before->name, rows[i].name) != 0) {
            rows[kept++] = rows[i];
        } else if (strcmp(before->algo, rows[i].algo) != 0 ||
                   before->group_size != rows[i].group_size) {
            st = tsr_fields_refuse(fields, member,
                                   "\"%.200s\" (%s) and \"%.200s\" (%s) mean the same module and "
                                   "differ",
                                   before->original, before->algo, rows[i].original, rows[i].algo);
        }
    }
    *count = kept;
    return st;
}

static tsr_status read_rows(const tsr_fields *fields, const char *member, json_t *table,
                            tsr_arena *memory, tsr_declared *rows)
{
    tsr_status st = TSR_OK;
    size_t count = 0;
    const char *kept_algo = NULL;
    const char *name = NULL;
    json_t *value = NULL;

    json_object_foreach(table, name, value)
    {
        tsr_declared *row = &rows[count];
        const char *algo = "";
        tsr_quant_name copied = {0};
        tsr_status row_st = tsr_quant_name_read(fields, member, name, memory, &copied);
        if (row_st == TSR_OK)
            row_st = read_format(fields, copied.original, value, row, &algo);
        if (row_st == TSR_ERR_MEMORY)
            return row_st;
        if (row_st != TSR_OK) {
            st = row_st;
            continue;
        }
        row->name = copied.canonical;
        row->original = copied.original;
        kept_algo = keep_algo(algo, kept_algo, memory);
        if (kept_algo == NULL)
            return TSR_ERR_MEMORY;
        row->algo = kept_algo;
        count++;
    }
    return st;
}

/* The table itself: some writers put it inside an object of the same name. */
static tsr_status find_table(const tsr_fields *fields, const char *member, json_t **ret_table)
{
    json_t *table = json_object_get(fields->object, member);
    json_t *inner = json_object_get(table, member);

    if (table != NULL && !json_is_null(table) && !json_is_object(table))
        return tsr_fields_refuse(fields, member, "is not an object");
    if (inner != NULL && json_object_size(table) != 1)
        return tsr_fields_refuse(fields, member, "holds both rows and a table of that name");
    if (inner != NULL && !json_is_object(inner))
        return tsr_fields_refuse(fields, member, "is not an object");
    *ret_table = inner != NULL ? inner : table;
    return TSR_OK;
}

tsr_status tsr_quant_table_read(const tsr_fields *fields, const char *member, tsr_arena *memory,
                                tsr_declared **ret_rows, size_t *ret_count)
{
    json_t *table = NULL;
    tsr_status st = find_table(fields, member, &table);
    if (st != TSR_OK)
        return st;

    size_t count = json_object_size(table);
    tsr_declared *rows = tsr_arena_array(memory, count + 1, sizeof(*rows));
    if (rows == NULL)
        return TSR_ERR_MEMORY;
    st = read_rows(fields, member, table, memory, rows);
    if (st != TSR_OK)
        return st;

    qsort(rows, count, sizeof(*rows), compare_rows);
    st = merge_rows(fields, member, rows, &count);
    if (st != TSR_OK)
        return st;

    *ret_rows = rows;
    *ret_count = count;
    return TSR_OK;
}
