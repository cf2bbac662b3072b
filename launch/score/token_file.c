/* Told apart by their first nine bytes, not by their name. A gap among tokens.I is refused, because
 * a sequence that was left out would go unnoticed in an answer of the same form. */
#include "launch/score/token_file.h"

#include "runtime/base/file.h"
#include "runtime/base/json_file.h"
#include "runtime/checkpoint/safetensors.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { NAME_BYTES = 32, LENGTH_BYTES = 8, MAX_SEQUENCES = 1 << 20 };
static const size_t max_json_bytes = (size_t)1 << 30;

static tsr_status fail(tsr_problems *problems, const char *path, size_t sequence, const char *what)
{
    tsr_problems_add(problems, TSR_SEVERITY_ERROR, "--tokens %s: sequence %zu: %s", path, sequence,
                     what);
    return TSR_ERR_ARG;
}

static tsr_status check_ids(const char *path, size_t at, const tsr_token_sequence *sequence,
                            int32_t vocab, tsr_problems *problems)
{
    for (int32_t i = 0; i < sequence->count; i++) {
        if (sequence->ids[i] < 0 || sequence->ids[i] >= vocab) {
            tsr_problems_add(problems, TSR_SEVERITY_ERROR,
                             "--tokens %s: sequence %zu, position %d: id %d is not one of the "
                             "model's 0 to %d",
                             path, at, i, sequence->ids[i], vocab - 1);
            return TSR_ERR_ARG;
        }
    }
    return TSR_OK;
}

static tsr_status read_json_sequence(const char *path, size_t at, const json_t *array,
                                     tsr_arena *memory, tsr_problems *problems,
                                     tsr_token_sequence *ret_sequence)
{
    const size_t count = json_array_size(array);
    if (!json_is_array(array) || count == 0 || count > INT32_MAX)
        return fail(problems, path, at, "expected a list of at least one id");

    int32_t *ids = tsr_arena_array(memory, count, sizeof(*ids));
    if (ids == NULL)
        return TSR_ERR_MEMORY;
    for (size_t i = 0; i < count; i++) {
        const json_t *id = json_array_get(array, i);
        const json_int_t value = json_integer_value(id);
        if (!json_is_integer(id) || value < 0 || value > INT32_MAX)
            return fail(problems, path, at, "an id is not a whole number from 0 on");
        ids[i] = (int32_t)value;
    }
    *ret_sequence = (tsr_token_sequence){.ids = ids, .count = (int32_t)count};
    return TSR_OK;
}

static tsr_status read_json(const char *path, tsr_arena *memory, tsr_problems *problems,
                            tsr_token_file *tokens)
{
    json_t *json = NULL;
    tsr_status st = tsr_json_load_file(path, max_json_bytes, problems, &json);
    if (st != TSR_OK)
        return st == TSR_ERR_CHECKPOINT ? TSR_ERR_ARG : st;

    const size_t count = json_array_size(json);
    if (!json_is_array(json) || count == 0 || count > MAX_SEQUENCES)
        st = fail(problems, path, 0, "expected an array of arrays of ids");
    else
        tokens->sequences = tsr_arena_array(memory, count, sizeof(*tokens->sequences));
    if (st == TSR_OK && tokens->sequences == NULL)
        st = TSR_ERR_MEMORY;
    for (size_t i = 0; i < count && st == TSR_OK; i++)
        st = read_json_sequence(path, i, json_array_get(json, i), memory, problems,
                                &tokens->sequences[tokens->count++]);
    json_decref(json);
    return st;
}

/* The I of tokens.I, spelled as it is printed; `none` for any other name. */
static size_t sequence_number(const char *name, size_t none)
{
    static const char start[] = "tokens.";
    char again[NAME_BYTES];
    size_t number = 0;

    if (strncmp(name, start, sizeof(start) - 1) != 0)
        return none;
    for (const char *c = name + sizeof(start) - 1; *c >= '0' && *c <= '9' && number < none; c++)
        number = number * 10 + (size_t)(*c - '0');
    (void)snprintf(again, sizeof(again), "tokens.%zu", number);
    return number < none && strcmp(name, again) == 0 ? number : none;
}

/* The tensor of one sequence; NULL where there is a gap. */
typedef struct numbered {
    const tsr_tensor *tensor;
} numbered;

/* By number, as many as the file has tensors and an empty one behind them. */
static numbered *tensors_by_number(const tsr_safetensors *header, tsr_arena *memory)
{
    numbered *by_number = tsr_arena_array(memory, header->count + 1, sizeof(*by_number));

    for (size_t i = 0; i < header->count && by_number != NULL; i++) {
        const size_t number = sequence_number(header->tensors[i].name, header->count);
        if (number < header->count)
            by_number[number].tensor = &header->tensors[i];
    }
    return by_number;
}

/* Those that are there, also behind a gap. */
static size_t count_sequences(const tsr_safetensors *header)
{
    static const char start[] = "tokens.";
    size_t count = 0;
    for (size_t i = 0; i < header->count; i++)
        count += strncmp(header->tensors[i].name, start, sizeof(start) - 1) == 0;
    return count;
}

static tsr_status read_tensors(const char *path, const tsr_file *file, tsr_arena *memory,
                               tsr_problems *problems, tsr_token_file *tokens)
{
    tsr_safetensors header;
    if (tsr_safetensors_open(path, path, 0, memory, problems, &header) != TSR_OK)
        return TSR_ERR_ARG;
    tokens->sequences = tsr_arena_array(memory, header.count + 1, sizeof(*tokens->sequences));
    const numbered *by_number = tensors_by_number(&header, memory);
    if (tokens->sequences == NULL || by_number == NULL)
        return TSR_ERR_MEMORY;

    for (size_t i = 0; i < MAX_SEQUENCES && by_number[i].tensor != NULL; i++) {
        const tsr_tensor *tensor = by_number[i].tensor;
        if (tensor->dtype != TSR_DTYPE_I32 || tensor->rank != 1 || tensor->shape[0] < 1 ||
            tensor->shape[0] > INT32_MAX)
            return fail(problems, path, i, "expected int32 [T] of at least one id");
        int32_t *ids = tsr_arena_alloc(memory, (size_t)tensor->bytes);
        if (ids == NULL)
            return TSR_ERR_MEMORY;
        if (tsr_file_read(file, tensor->offset, (size_t)tensor->bytes, ids) != TSR_OK)
            return fail(problems, path, i, "cannot be read");
        tokens->sequences[tokens->count++] =
            (tsr_token_sequence){.ids = ids, .count = (int32_t)tensor->shape[0]};
    }
    if (tokens->count == 0 || tokens->count != count_sequences(&header))
        return fail(problems, path, tokens->count, "there is no tensor tokens.I of this number");
    return TSR_OK;
}

tsr_status tsr_token_file_read(const char *path, int32_t vocab, tsr_arena *memory,
                               tsr_problems *problems, tsr_token_file *ret_tokens)
{
    tsr_token_file tokens = {0};
    tsr_file file;
    unsigned char head[LENGTH_BYTES + 1] = {0};

    if (tsr_file_open(path, &file) != TSR_OK) {
        tsr_problems_add(problems, TSR_SEVERITY_ERROR, "--tokens %s: cannot be opened", path);
        return TSR_ERR_ARG;
    }
    /* safetensors begins with a length of 8 bytes, the last of them zero, and a brace; JSON has no
     * zero bytes. */
    const bool tensors = tsr_file_read(&file, 0, sizeof(head), head) == TSR_OK &&
                         head[LENGTH_BYTES - 1] == 0 && head[LENGTH_BYTES] == '{';
    tsr_status st = tensors ? read_tensors(path, &file, memory, problems, &tokens)
                            : read_json(path, memory, problems, &tokens);
    tsr_file_close(&file);

    for (size_t i = 0; i < tokens.count && st == TSR_OK; i++) {
        st = check_ids(path, i, &tokens.sequences[i], vocab, problems);
        if (tokens.sequences[i].count > tokens.longest)
            tokens.longest = tokens.sequences[i].count;
    }
    if (st == TSR_OK)
        *ret_tokens = tokens;
    return st;
}
