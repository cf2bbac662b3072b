/*
 * A header is a stranger's word on where to read. It is believed step by step, what is cheap first:
 *
 *   file size > u64 n > JSON of n bytes > each tensor: dtype, shape and offsets agree
 *                                       > the last one ends where the file ends
 *                                       > sorted by offset: no overlap, no hole
 *
 * A file cut short is one line, not one for each tensor behind the cut. Nothing is multiplied or
 * added before it is known to fit 63 bits. Offsets become the file's own only when everything
 * holds.
 */
#include "runtime/checkpoint/safetensors.h"

#include "runtime/base/file.h"
#include "runtime/base/json_file.h"
#include "runtime/checkpoint/module_name.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { LENGTH_BYTES = 8, DECIMAL = 10 };

/* The largest models have 200000 tensors, in a hundred files. A few empty ones are named later. */
enum { MOST_TENSORS = 1 << 18, MOST_EMPTY = 1000 };

/* What one header is read with. */
typedef struct reading {
    const char *file_name;
    int32_t file;
    uint64_t payload_at; /* where the payload begins */
    uint64_t payload;    /* bytes of it */
    uint64_t described;  /* bytes of it that tensors claim */
    tsr_arena *memory;
    tsr_problems *problems;
} reading;

static tsr_status refuse_tensor(const reading *r, const char *tensor, const char *what)
{
    tsr_problems_add(r->problems, TSR_SEVERITY_ERROR, "%s: tensor \"%s\": %s", r->file_name, tensor,
                     what);
    return TSR_ERR_CHECKPOINT;
}

/* False when it is not a whole number from 0 to 2^63 - 1. */
static bool read_whole(const json_t *value, uint64_t *ret_number)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return false;
    *ret_number = (uint64_t)json_integer_value(value);
    return true;
}

static tsr_status read_dtype(const reading *r, const json_t *value, tsr_tensor *tensor)
{
    const char *spelled = json_string_value(value);

    if (spelled == NULL)
        return refuse_tensor(r, tensor->name, "\"dtype\" is missing or not a string");
    if (strlen(spelled) != json_string_length(value) ||
        !tsr_dtype_from_name(spelled, &tensor->dtype)) {
        tsr_problems_add(r->problems, TSR_SEVERITY_ERROR,
                         "%s: tensor \"%s\": dtype \"%.32s\" is not known", r->file_name,
                         tensor->name, spelled);
        return TSR_ERR_CHECKPOINT;
    }
    return TSR_OK;
}

/* Writes rank and shape, and the bytes they ask for into tensor->bytes. */
static tsr_status read_shape(const reading *r, const json_t *value, tsr_tensor *tensor)
{
    if (!json_is_array(value))
        return refuse_tensor(r, tensor->name, "\"shape\" is missing or not a list");

    const size_t rank = json_array_size(value);
    if (rank > TSR_MAX_TENSOR_RANK)
        return refuse_tensor(r, tensor->name, "more than 8 dimensions");

    uint64_t bytes = tsr_dtype_bytes(tensor->dtype);
    for (size_t i = 0; i < rank; i++) {
        uint64_t dim = 0;
        if (!read_whole(json_array_get(value, i), &dim))
            return refuse_tensor(r, tensor->name,
                                 "a dimension is not a whole number from 0 to 2^63 - 1");
        if (dim != 0 && bytes > (uint64_t)INT64_MAX / dim)
            return refuse_tensor(r, tensor->name, "its shape asks for more than 2^63 bytes");
        bytes *= dim;
        tensor->shape[i] = (int64_t)dim;
    }
    tensor->rank = (int32_t)rank;
    tensor->bytes = bytes;
    return TSR_OK;
}

/* Checks the length against the shape; ends beyond the file are seen later, once for all. */
static tsr_status read_offsets(reading *r, const json_t *value, tsr_tensor *tensor)
{
    uint64_t begin = 0;
    uint64_t end = 0;

    if (!json_is_array(value) || json_array_size(value) != 2 ||
        !read_whole(json_array_get(value, 0), &begin) ||
        !read_whole(json_array_get(value, 1), &end))
        return refuse_tensor(r, tensor->name, "\"data_offsets\" is not a pair of whole numbers");
    if (end < begin)
        return refuse_tensor(r, tensor->name, "\"data_offsets\" end before they begin");
    if (end - begin != tensor->bytes) {
        tsr_problems_add(r->problems, TSR_SEVERITY_ERROR,
                         "%s: tensor \"%s\": its shape and dtype ask for %" PRIu64
                         " bytes, its offsets hold %" PRIu64,
                         r->file_name, tensor->name, tensor->bytes, end - begin);
        return TSR_ERR_CHECKPOINT;
    }
    if (end > r->described)
        r->described = end;
    tensor->offset = begin;
    return TSR_OK;
}

static tsr_status read_tensor(reading *r, const json_t *entry, tsr_tensor *tensor)
{
    if (!json_is_object(entry) || json_object_size(entry) != 3)
        return refuse_tensor(r, tensor->name, "is not {\"dtype\", \"shape\", \"data_offsets\"}");

    tensor->file = r->file;
    tsr_status st = read_dtype(r, json_object_get(entry, "dtype"), tensor);
    if (st == TSR_OK)
        st = read_shape(r, json_object_get(entry, "shape"), tensor);
    if (st == TSR_OK)
        st = read_offsets(r, json_object_get(entry, "data_offsets"), tensor);
    return st;
}

/* Room for all names of a file, taken at once. */
static char *reserve_names(tsr_arena *memory, json_t *json)
{
    size_t bytes = 1;
    const char *name = NULL;
    json_t *entry = NULL;

    json_object_foreach(json, name, entry)
    {
        bytes += strlen(name) + 1;
    }
    return tsr_arena_alloc(memory, bytes);
}

static tsr_status read_tensors(reading *r, json_t *json, tsr_safetensors *header)
{
    tsr_tensor *tensors =
        tsr_arena_array(r->memory, json_object_size(json) + 1, sizeof(*header->tensors));
    char *names = reserve_names(r->memory, json);
    if (tensors == NULL || names == NULL)
        return TSR_ERR_MEMORY;

    tsr_status st = TSR_OK;
    size_t count = 0;
    const char *name = NULL;
    json_t *entry = NULL;
    json_object_foreach(json, name, entry)
    {
        if (strcmp(name, "__metadata__") == 0)
            continue;
        if (!tsr_name_is_usable(name, TSR_MAX_TENSOR_NAME)) {
            tsr_problems_add(r->problems, TSR_SEVERITY_ERROR,
                             "%s: the name of tensor number %zu is empty, longer than 512 bytes or "
                             "has control characters",
                             r->file_name, count);
            st = TSR_ERR_CHECKPOINT;
            continue;
        }
        const size_t length = strlen(name) + 1;
        memcpy(names, name, length);
        tensors[count].name = names;
        if (read_tensor(r, entry, &tensors[count]) != TSR_OK)
            st = TSR_ERR_CHECKPOINT;
        names += length;
        count++;
    }
    header->tensors = tensors;
    header->count = count;
    return st;
}

/* What is sorted to see whether tensors follow each other. */
typedef struct place {
    const tsr_tensor *tensor;
} place;

static int compare_offsets(const void *left, const void *right)
{
    const tsr_tensor *a = ((const place *)left)->tensor;
    const tsr_tensor *b = ((const place *)right)->tensor;

    if (a->offset != b->offset)
        return a->offset < b->offset ? -1 : 1;
    if (a->bytes != b->bytes)
        return a->bytes < b->bytes ? -1 : 1;
    return 0;
}

/* `order` holds the tensors by offset. */
static tsr_status check_order(const reading *r, const place *order, size_t count)
{
    tsr_status st = TSR_OK;
    uint64_t expected = 0;
    const char *before = "";

    for (size_t i = 0; i < count; i++) {
        const tsr_tensor *t = order[i].tensor;
        if (t->offset < expected) {
            tsr_problems_add(r->problems, TSR_SEVERITY_ERROR,
                             "%s: tensor \"%s\": overlaps tensor \"%s\"", r->file_name, t->name,
                             before);
            st = TSR_ERR_CHECKPOINT;
        } else if (t->offset > expected) {
            tsr_problems_add(r->problems, TSR_SEVERITY_ERROR,
                             "%s: tensor \"%s\": %" PRIu64 " bytes in front of it belong to no "
                             "tensor",
                             r->file_name, t->name, t->offset - expected);
            st = TSR_ERR_CHECKPOINT;
        }
        if (t->offset + t->bytes >= expected) {
            expected = t->offset + t->bytes;
            before = t->name;
        }
    }
    return st;
}

/* The tensors cover the payload exactly. */
static tsr_status check_coverage(const reading *r, const tsr_safetensors *header)
{
    place *order = malloc((header->count + 1) * sizeof(*order));
    if (order == NULL)
        return TSR_ERR_MEMORY;

    bool sorted = true;
    for (size_t i = 0; i < header->count; i++) {
        order[i].tensor = &header->tensors[i];
        sorted = sorted && (i == 0 || compare_offsets(&order[i - 1], &order[i]) <= 0);
    }
    if (!sorted)
        qsort(order, header->count, sizeof(*order), compare_offsets);

    const tsr_status st = check_order(r, order, header->count);
    free(order);
    return st;
}

/* What the tensors claim is what the file has. */
static tsr_status check_length(const reading *r)
{
    if (r->described == r->payload)
        return TSR_OK;

    if (r->described > r->payload) {
        tsr_problems_add(r->problems, TSR_SEVERITY_ERROR,
                         "%s: truncated: its tensors end at byte %" PRIu64 ", the file at %" PRIu64
                         "; copy or download it again",
                         r->file_name, r->payload_at + r->described, r->payload_at + r->payload);
    } else {
        tsr_problems_add(r->problems, TSR_SEVERITY_ERROR,
                         "%s: %" PRIu64 " bytes behind the last tensor belong to none",
                         r->file_name, r->payload - r->described);
    }
    return TSR_ERR_CHECKPOINT;
}

/* A whole number behind any of " :[,", and where it ends. */
static const char *skip_number(const char *at, const char *end, uint64_t *ret_number)
{
    uint64_t number = 0;

    while (at < end && strchr(" :[,", *at) != NULL && *at != '\0')
        at++;
    for (; at < end && *at >= '0' && *at <= '9'; at++)
        number = number * DECIMAL + (uint64_t)(*at - '0');
    *ret_number = number;
    return at;
}

/* Where the key of a tensor's offsets ends next, or NULL. */
static const char *next_offsets(const char *at, const char *end)
{
    static const char key[] = "\"data_offsets\"";
    const size_t count = sizeof(key) - 1;

    while (at < end) {
        at = memchr(at, '"', (size_t)(end - at));
        if (at == NULL || (size_t)(end - at) < count)
            return NULL;
        if (memcmp(at, key, count) == 0)
            return at + count;
        at++;
    }
    return NULL;
}

/* To parse a header takes a hundred times as long as to look through it: what has tensors without
 * end, or nothing in them, is refused unparsed. */
static tsr_status check_count(const reading *r, const char *text, size_t bytes)
{
    const char *end = text + bytes;
    size_t count = 0;
    size_t empty = 0;

    for (const char *at = next_offsets(text, end); at != NULL; at = next_offsets(at, end)) {
        uint64_t first = 0;
        uint64_t last = 0;
        at = skip_number(at, end, &first);
        at = skip_number(at, end, &last);
        empty += first == last;
        count++;
    }
    if (empty <= MOST_EMPTY && count <= MOST_TENSORS)
        return TSR_OK;
    tsr_problems_add(r->problems, TSR_SEVERITY_ERROR,
                     "%s: its header describes %zu tensors, %zu of them empty; a file has at most "
                     "%d, and a model none without a number in it",
                     r->file_name, count, empty, MOST_TENSORS);
    return TSR_ERR_CHECKPOINT;
}

static tsr_status read_header(reading *r, const char *text, size_t bytes, tsr_safetensors *header)
{
    json_t *json = NULL;

    if (bytes == 0 || text[0] != '{') {
        tsr_problems_add(r->problems, TSR_SEVERITY_ERROR,
                         "%s: not a safetensors file: its header is not a JSON object",
                         r->file_name);
        return TSR_ERR_CHECKPOINT;
    }
    tsr_status st = check_count(r, text, bytes);
    if (st == TSR_OK)
        st = tsr_json_load_bytes(r->file_name, text, bytes, r->problems, &json);
    if (st != TSR_OK)
        return st;

    st = read_tensors(r, json, header);
    json_decref(json);
    if (st == TSR_OK)
        st = check_length(r);
    if (st == TSR_OK)
        st = check_coverage(r, header);
    if (st != TSR_OK)
        return st;

    for (size_t i = 0; i < header->count; i++)
        header->tensors[i].offset += r->payload_at;
    return TSR_OK;
}

/* The length in front of the header, checked against the file's. */
static tsr_status read_length(const char *name, const char *first, uint64_t file_bytes,
                              tsr_problems *problems, uint64_t *ret_length)
{
    uint64_t length = 0;

    if (memcmp(first, "version ", LENGTH_BYTES) == 0) {
        tsr_problems_add(problems, TSR_SEVERITY_ERROR,
                         "%s: stands for a file that was not fetched; run git lfs pull", name);
        return TSR_ERR_CHECKPOINT;
    }
    for (int i = LENGTH_BYTES - 1; i >= 0; i--)
        length = length << 8 | (unsigned char)first[i];
    if (length > TSR_MAX_HEADER_BYTES || length > file_bytes - LENGTH_BYTES) {
        tsr_problems_add(problems, TSR_SEVERITY_ERROR,
                         "%s: its header claims %" PRIu64 " bytes, the file has %" PRIu64
                         " and a header at most 100 MiB: truncated or not a safetensors file",
                         name, length, file_bytes);
        return TSR_ERR_CHECKPOINT;
    }
    *ret_length = length;
    return TSR_OK;
}

static tsr_status refuse_short(const char *name, uint64_t bytes, tsr_problems *problems)
{
    tsr_problems_add(problems, TSR_SEVERITY_ERROR,
                     "%s: %" PRIu64 " bytes are too few for a safetensors file", name, bytes);
    return TSR_ERR_CHECKPOINT;
}

tsr_status tsr_safetensors_parse(const tsr_safetensors_bytes *source, tsr_arena *memory,
                                 tsr_problems *problems, tsr_safetensors *ret_header)
{
    if (source->file_bytes < LENGTH_BYTES || source->count < LENGTH_BYTES)
        return refuse_short(source->name, source->file_bytes, problems);

    uint64_t length = 0;
    tsr_status st = read_length(source->name, source->bytes, source->file_bytes, problems, &length);
    if (st != TSR_OK)
        return st;
    if (length > source->count - LENGTH_BYTES)
        return refuse_short(source->name, source->count, problems);

    reading r = {
        .file_name = source->name,
        .file = source->file,
        .payload_at = LENGTH_BYTES + length,
        .payload = source->file_bytes - LENGTH_BYTES - length,
        .memory = memory,
        .problems = problems,
    };
    tsr_safetensors header = {
        .mark = tsr_file_mark_of(source->file_bytes, source->bytes, (size_t)r.payload_at)};
    st = read_header(&r, source->bytes + LENGTH_BYTES, (size_t)length, &header);
    if (st == TSR_OK)
        *ret_header = header;
    return st;
}

static tsr_status refuse_unreadable(const char *name, tsr_problems *problems)
{
    tsr_problems_add(problems, TSR_SEVERITY_ERROR, "%s: cannot be read: %s", name,
                     errno != 0 ? strerror(errno) : "it became shorter");
    return TSR_ERR_CHECKPOINT;
}

/* Length and header into *ret_bytes, which the caller frees. */
static tsr_status read_beginning(const tsr_file *opened, const char *name, tsr_problems *problems,
                                 char **ret_bytes, size_t *ret_count)
{
    if (opened->bytes < LENGTH_BYTES)
        return refuse_short(name, opened->bytes, problems);

    char first[LENGTH_BYTES];
    if (tsr_file_read(opened, 0, LENGTH_BYTES, first) != TSR_OK)
        return refuse_unreadable(name, problems);

    uint64_t length = 0;
    const tsr_status st = read_length(name, first, opened->bytes, problems, &length);
    if (st != TSR_OK)
        return st;

    const size_t count = LENGTH_BYTES + (size_t)length;
    char *bytes = malloc(count);
    if (bytes == NULL)
        return TSR_ERR_MEMORY;
    if (tsr_file_read(opened, 0, count, bytes) != TSR_OK) {
        free(bytes);
        return refuse_unreadable(name, problems);
    }
    *ret_bytes = bytes;
    *ret_count = count;
    return TSR_OK;
}

tsr_status tsr_safetensors_open(const char *path, const char *name, int32_t file, tsr_arena *memory,
                                tsr_problems *problems, tsr_safetensors *ret_header)
{
    tsr_file opened;
    errno = 0;
    if (tsr_file_open(path, &opened) != TSR_OK)
        return refuse_unreadable(name, problems);

    tsr_safetensors_bytes source = {.name = name, .file_bytes = opened.bytes, .file = file};
    char *bytes = NULL;
    tsr_status st = read_beginning(&opened, name, problems, &bytes, &source.count);
    tsr_file_close(&opened);
    if (st != TSR_OK)
        return st;

    source.bytes = bytes;
    st = tsr_safetensors_parse(&source, memory, problems, ret_header);
    free(bytes);
    return st;
}
