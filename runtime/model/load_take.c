/*
 * By kind of piece:
 *
 *   weight            rows as they lie ----------------------------> tsr_device_load_rows
 *                     rows at an odd address --> scratch ----------> tsr_device_load_rows
 *   codes of scales   checked -------------------------------------> tsr_device_load_rows
 *   other numbers     --> scratch as f32, checked -----------------> tsr_device_load_rows, put
 *   one of a tensor   --> scratch as f32, checked -----------------> the view
 *
 * Nothing waits on the host for anything else: scales go to their place when they come.
 */
#include "runtime/model/load_take.h"

#include "runtime/base/clock.h"
#include "runtime/base/numeric.h"
#include "runtime/model/stored_numbers.h"
#include "runtime/plan/loading.h"
#include "runtime/plan/modules.h"
#include "runtime/plan/shapes.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>

_Static_assert(sizeof(tsr_load_target) + sizeof(tsr_linear) <= TSR_LOAD_TENSOR_RECORD_BYTES,
               "the plan counts too little for a linear");

static tsr_status say(const tsr_plan *plan, const tsr_piece *piece, const char *what, char *words)
{
    const size_t room = TSR_LOAD_WORDS_BYTES;
    tsr_piece_words(plan, piece, room, words);
    const size_t used = strlen(words);
    (void)snprintf(words + used, room - used, ": %s", what);
    return TSR_ERR_CHECKPOINT;
}

static tsr_status refuse(const tsr_taker *taker, const tsr_piece *piece, const char *what)
{
    return say(taker->args->plan, piece, what, taker->words);
}

static tsr_status refuse_value(const tsr_taker *taker, const tsr_piece *piece, size_t index,
                               float value)
{
    char what[128];
    (void)snprintf(what, sizeof(what),
                   "element %zu is %g, which cannot be: export the checkpoint again", index,
                   (double)value);
    return refuse(taker, piece, what);
}

tsr_status tsr_taker_settle(const tsr_taker *taker, const tsr_piece *piece)
{
    tsr_device *device = taker->args->device;
    const int64_t until = tsr_clock_ms() + taker->args->deadline_ms;
    bool passed = false;
    tsr_status st = tsr_device_mark(device, taker->mark, taker->args->stream);
    if (st == TSR_OK)
        st = tsr_device_passed(device, taker->mark, &passed);
    while (st == TSR_OK && !passed && tsr_clock_ms() < until) {
        (void)sched_yield();
        st = tsr_device_passed(device, taker->mark, &passed);
    }
    if (st == TSR_OK && !passed) {
        (void)refuse(taker, piece, "the device does not take it");
        st = TSR_ERR_TIMEOUT;
    }
    return st;
}

/* A piece's numbers as f32 in the scratch, checked. */
static tsr_status read_numbers(const tsr_taker *taker, const tsr_piece *piece,
                               const unsigned char *bytes, tsr_number_rule rule)
{
    const size_t columns = (size_t)tsr_piece_columns(taker->args->plan, piece);
    const size_t count = (size_t)piece->count * columns;
    float *values = taker->scratch;
    tsr_numbers_read(piece->place.dtype, bytes, count, values);
    const size_t bad = tsr_numbers_first_bad(values, count, rule);
    if (bad < count)
        return refuse_value(taker, piece, (size_t)piece->first * columns + bad, values[bad]);
    return TSR_OK;
}

static tsr_status load_rows(const tsr_taker *taker, const tsr_piece *piece, tsr_linear_part part,
                            const void *bytes)
{
    const tsr_load_target *to = &taker->targets->linears[piece->owner];
    const tsr_linear_rows rows = {
        .part = part, .first = piece->first, .count = piece->count, .bytes = bytes};
    const tsr_status st = tsr_device_load_rows(taker->args->device, to->linear, to->memory, &rows,
                                               taker->args->stream);
    if (st == TSR_ERR_CHECKPOINT)
        return refuse(taker, piece, "holds NaN or infinity: export the checkpoint again");
    return st;
}

/* Numbers that the device keeps as f32: through the scratch. */
static tsr_status take_numbers(const tsr_taker *taker, const tsr_piece *piece,
                               const unsigned char *bytes, tsr_linear_part part)
{
    const tsr_number_rule rule =
        part == TSR_LINEAR_SCALES ? TSR_NUMBERS_NOT_NEGATIVE : TSR_NUMBERS_FINITE;
    tsr_status st = read_numbers(taker, piece, bytes, rule);
    if (st == TSR_OK)
        st = load_rows(taker, piece, part, taker->scratch);
    return st == TSR_OK ? tsr_taker_settle(taker, piece) : st;
}

/* Scales that stay the codes they are. */
static tsr_status take_codes(const tsr_taker *taker, const tsr_piece *piece,
                             const unsigned char *bytes)
{
    const size_t count = (size_t)piece->place.bytes;
    const size_t bad = tsr_e4m3_scales_first_bad(bytes, count);
    const size_t before =
        (size_t)piece->first * (size_t)tsr_piece_columns(taker->args->plan, piece);
    if (bad < count)
        return refuse_value(taker, piece, before + bad, tsr_e4m3_to_f32(bytes[bad]));
    return load_rows(taker, piece, TSR_LINEAR_SCALES, bytes);
}

/* One scale of the whole weight, or of its input. */
static tsr_status take_whole(const tsr_taker *taker, const tsr_piece *piece,
                             const unsigned char *bytes, float *to)
{
    const tsr_status st = read_numbers(taker, piece, bytes, TSR_NUMBERS_POSITIVE);
    if (st == TSR_OK)
        memcpy(to, taker->scratch, sizeof(*to));
    return st;
}

static tsr_status take_small(const tsr_taker *taker, const tsr_piece *piece,
                             const unsigned char *bytes)
{
    tsr_linear *linear = taker->targets->linears[piece->owner].linear;
    const tsr_format_row *row = tsr_format_row_of(linear->format);

    if (piece->part == TSR_PART_GLOBAL_SCALE)
        return take_whole(taker, piece, bytes, &linear->weight_scale);
    if (piece->part == TSR_PART_INPUT_SCALE)
        return take_whole(taker, piece, bytes, &linear->input_scale);
    if (piece->part == TSR_PART_BIAS)
        return take_numbers(taker, piece, bytes, TSR_LINEAR_BIAS);
    if (piece->part == TSR_PART_PRE_QUANT_SCALE)
        return take_numbers(taker, piece, bytes, TSR_LINEAR_PRE_QUANT_SCALE);
    if (row->scales == TSR_SCALES_TENSOR)
        return take_whole(taker, piece, bytes, &linear->weight_scale);
    return tsr_dtype_is_plain(row->scale_dtype)
               ? take_numbers(taker, piece, bytes, TSR_LINEAR_SCALES)
               : take_codes(taker, piece, bytes);
}

/* Rows whose elements do not lie where the processor wants them, moved a scratch at a time. */
static tsr_status take_unaligned(const tsr_taker *taker, const tsr_piece *piece,
                                 const unsigned char *bytes)
{
    const tsr_weight_format format = taker->targets->linears[piece->owner].linear->format;
    const int32_t step = tsr_device_row_step(taker->args->device, format);
    const uint64_t row_bytes = piece->place.bytes / (uint64_t)piece->count;
    const int32_t most = (int32_t)(taker->scratch_bytes / (row_bytes * (uint64_t)step)) * step;
    if (most == 0)
        return refuse(taker, piece, "rows so long must begin at a multiple of their element");

    tsr_status st = TSR_OK;
    for (int32_t done = 0; st == TSR_OK && done < piece->count;) {
        tsr_piece part = *piece;
        part.first = piece->first + done;
        part.count = piece->count - done < most ? piece->count - done : most;
        memcpy(taker->scratch, bytes + (uint64_t)done * row_bytes,
               (size_t)part.count * (size_t)row_bytes);
        st = load_rows(taker, &part, TSR_LINEAR_WEIGHT, taker->scratch);
        if (st == TSR_OK)
            st = tsr_taker_settle(taker, piece);
        done += part.count;
    }
    return st;
}

static tsr_status take_weight(const tsr_taker *taker, const tsr_piece *piece,
                              const unsigned char *bytes)
{
    const bool aligned = (uintptr_t)bytes % tsr_dtype_bytes(piece->place.dtype) == 0;
    return aligned ? load_rows(taker, piece, TSR_LINEAR_WEIGHT, bytes)
                   : take_unaligned(taker, piece, bytes);
}

static tsr_status take_kv_scale(const tsr_taker *taker, const tsr_piece *piece,
                                const unsigned char *bytes)
{
    const tsr_plan *plan = taker->args->plan;
    const tsr_vector_plan *v = &plan->vectors[piece->owner];
    if (v->layer < 0 || v->layer >= plan->model.layers)
        return refuse(taker, piece, "the model has no place for it");
    tsr_layer_weights *w = &taker->args->weights->layer[v->layer];
    return take_whole(taker, piece, bytes,
                      v->role == TSR_ROLE_K_SCALE ? &w->key_scale : &w->value_scale);
}

static tsr_status take_vector(const tsr_taker *taker, const tsr_piece *piece,
                              const unsigned char *bytes)
{
    if (tsr_role_is_kv_scale(taker->args->plan->vectors[piece->owner].role))
        return take_kv_scale(taker, piece, bytes);

    float *memory = (float *)(void *)taker->targets->vectors[piece->owner];
    tsr_status st = read_numbers(taker, piece, bytes, TSR_NUMBERS_FINITE);
    if (st == TSR_OK)
        st = tsr_device_put(taker->args->device, memory + piece->first, taker->scratch,
                            (size_t)piece->count * sizeof(float), taker->args->stream);
    return st == TSR_OK ? tsr_taker_settle(taker, piece) : st;
}

tsr_status tsr_take_piece(const tsr_taker *taker, const tsr_piece *piece,
                          const unsigned char *bytes)
{
    if (piece->part == TSR_PART_VECTOR)
        return take_vector(taker, piece, bytes);
    if (piece->part == TSR_PART_WEIGHT)
        return take_weight(taker, piece, bytes);
    return take_small(taker, piece, bytes);
}

/* The view of a linear. One without a weight has none: that it is missing is found at the end. */
static tsr_status find_view(const tsr_loader_args *args, int32_t owner, tsr_arena *arena,
                            char *words, tsr_linear **ret_view)
{
    const tsr_linear_plan *l = &args->plan->linears[owner];
    const tsr_piece piece = {.place = l->weight, .owner = owner, .part = TSR_PART_WEIGHT};
    tsr_linear *view = NULL;

    if (l->weight.file < 0) {
        view = tsr_arena_alloc(arena, sizeof(*view));
        if (view == NULL)
            return TSR_ERR_MEMORY;
    } else {
        view = tsr_weights_linear(args->weights, args->plan, l);
        if (view == NULL)
            return say(args->plan, &piece, "the model has no place for it", words);
        if (view->weight != NULL)
            return say(args->plan, &piece, "the plan lists it twice", words);
    }
    *ret_view = view;
    return TSR_OK;
}

static tsr_status place_linear(const tsr_loader_args *args, const tsr_linear_plan *l,
                               const tsr_load_target *to)
{
    const tsr_linear_spec spec = {
        .format = l->format,
        .activation = l->activation,
        .out = l->out,
        .in = l->in,
        .bias = l->bias.file >= 0,
        .pre_quant_scale = l->pre_quant_scale.file >= 0,
        .weight_scale = 1,
        .input_scale = 1,
    };
    return tsr_device_place_linear(args->device, &spec, to->memory, to->linear);
}

static tsr_status place_vector(const tsr_loader_args *args, int32_t owner,
                               const unsigned char *memory, char *words)
{
    const tsr_vector_plan *v = &args->plan->vectors[owner];
    const tsr_piece piece = {.place = v->place, .owner = owner, .part = TSR_PART_VECTOR};
    if (v->place.file < 0 || tsr_role_is_kv_scale(v->role))
        return TSR_OK;

    const float **view = tsr_weights_vector(args->weights, args->plan, v);
    if (view == NULL)
        return say(args->plan, &piece, "the model has no place for it", words);
    if (*view != NULL)
        return say(args->plan, &piece, "the plan lists it twice", words);
    *view = (const float *)(const void *)memory;
    return TSR_OK;
}

tsr_status tsr_load_targets_place(const tsr_loader_args *args, tsr_arena *arena, char *words,
                                  tsr_load_targets *ret_targets)
{
    const tsr_plan *plan = args->plan;
    const tsr_load_targets t = {
        .linears = tsr_arena_array(arena, (size_t)plan->linear_count + 1, sizeof(*t.linears)),
        .vectors = tsr_arena_array(arena, (size_t)plan->vector_count + 1, sizeof(*t.vectors)),
    };
    if (t.linears == NULL || t.vectors == NULL)
        return TSR_ERR_MEMORY;

    unsigned char *memory = args->weights->memory;
    tsr_status st = TSR_OK;
    for (int32_t i = 0; st == TSR_OK && i < plan->linear_count; i++) {
        const tsr_linear_plan *l = &plan->linears[i];
        if (!tsr_rank_holds(plan, l, args->rank))
            continue;
        t.linears[i].memory = memory;
        st = find_view(args, i, arena, words, &t.linears[i].linear);
        if (st == TSR_OK)
            st = place_linear(args, l, &t.linears[i]);
        memory += tsr_device_linear_bytes(args->device, l->format, l->out, l->in, l->bias.file >= 0,
                                          l->pre_quant_scale.file >= 0);
    }
    for (int32_t i = 0; st == TSR_OK && i < plan->vector_count; i++) {
        t.vectors[i] = memory;
        st = place_vector(args, i, memory, words);
        memory += tsr_vector_bytes(&plan->vectors[i]);
    }
    if (st == TSR_OK)
        *ret_targets = t;
    return st;
}
