/*
 * From files to the device, a piece at a time:
 *
 *   file --reader--> | slot 0 | slot 1 | --device_load_rows--> weights
 *                          |                                     ^
 *                          +--> scratch: numbers as f32, --------+
 *                               rows that lie at an odd offset
 *
 * Nothing waits on the host for anything else: scales go to their place when they come. A slot is
 * given up once the stream has passed what was put from it.
 */
#include "runtime/model/load_weights.h"

#include "runtime/base/arena.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/base/numeric.h"
#include "runtime/model/load_order.h"
#include "runtime/model/read_ahead.h"
#include "runtime/model/stored_numbers.h"
#include "runtime/plan/loading.h"
#include "runtime/plan/shapes.h"

#include <inttypes.h>
#include <sched.h>
#include <stdlib.h>

enum { FIRST_BLOCK_BYTES = 1 << 16, WORDS_BYTES = 512, MS_PER_S = 1000 };

/* A linear on its way: the view, placed and with the scales known so far. */
typedef struct target {
    tsr_linear linear;
    unsigned char *memory; /* NULL: on another rank */
} target;

_Static_assert(sizeof(target) <= TSR_LOAD_TENSOR_RECORD_BYTES,
               "the plan counts too little for a linear");

struct tsr_loader {
    tsr_loader_args args;
    tsr_arena *arena; /* lives as long as the loader */
    tsr_reading reading;
    tsr_read_ahead *reader;
    tsr_load_order order;
    target *linears;         /* [linear_count] */
    unsigned char **vectors; /* [vector_count] */
    void *ring;              /* host memory of the device, as is scratch */
    void *scratch;           /* [TSR_LOAD_SCRATCH_BYTES] */
    tsr_mark *mark;          /* behind what was put last */
    size_t stretch;          /* next one */
    uint64_t bytes;          /* laid out */
};

/* Most tensors are on every rank: of those that find the same, the first to say it is enough. */
static bool is_said(const tsr_loader *loader)
{
    return loader->args.comm != NULL && tsr_comm_cause(loader->args.comm) == TSR_ERR_CHECKPOINT;
}

static tsr_status end_for_all(const tsr_loader *loader)
{
    if (loader->args.comm != NULL)
        tsr_comm_abort(loader->args.comm, TSR_ERR_CHECKPOINT);
    return TSR_ERR_CHECKPOINT;
}

static tsr_status say(const tsr_loader *loader, const tsr_piece *piece, const char *what)
{
    char words[WORDS_BYTES];
    tsr_piece_words(loader->args.plan, piece, sizeof(words), words);
    if (!is_said(loader))
        tsr_log(TSR_LOG_ERROR, "%s: %s", words, what);
    return end_for_all(loader);
}

static tsr_status say_value(const tsr_loader *loader, const tsr_piece *piece, size_t index,
                            float value)
{
    char words[WORDS_BYTES];
    tsr_piece_words(loader->args.plan, piece, sizeof(words), words);
    if (!is_said(loader))
        tsr_log(TSR_LOG_ERROR,
                "%s: element %zu is %g, which cannot be: export the checkpoint again", words, index,
                (double)value);
    return end_for_all(loader);
}

/* Until the device is done with what was put: slot and scratch are free then. */
static tsr_status settle(tsr_loader *loader, const tsr_piece *piece)
{
    const int64_t until = tsr_clock_ms() + loader->args.deadline_ms;
    bool passed = false;
    tsr_status st = tsr_device_mark(loader->args.device, loader->mark, loader->args.stream);
    if (st == TSR_OK)
        st = tsr_device_passed(loader->args.device, loader->mark, &passed);
    while (st == TSR_OK && !passed && tsr_clock_ms() < until) {
        (void)sched_yield();
        st = tsr_device_passed(loader->args.device, loader->mark, &passed);
    }
    if (st == TSR_OK && !passed) {
        char words[WORDS_BYTES];
        tsr_piece_words(loader->args.plan, piece, sizeof(words), words);
        tsr_log(TSR_LOG_ERROR, "%s: the device does not take it", words);
        st = TSR_ERR_TIMEOUT;
    }
    return st;
}

/* A piece's numbers as f32 in the scratch, checked. */
static tsr_status read_numbers(tsr_loader *loader, const tsr_piece *piece,
                               const unsigned char *bytes, tsr_number_rule rule)
{
    const size_t columns = (size_t)tsr_piece_columns(loader->args.plan, piece);
    const size_t count = (size_t)piece->count * columns;
    float *values = loader->scratch;
    tsr_numbers_read(piece->place.dtype, bytes, count, values);
    const size_t bad = tsr_numbers_first_bad(values, count, rule);
    if (bad < count)
        return say_value(loader, piece, (size_t)piece->first * columns + bad, values[bad]);
    return TSR_OK;
}

static tsr_status load_rows(tsr_loader *loader, const tsr_piece *piece, tsr_linear_part part,
                            const void *bytes)
{
    const target *to = &loader->linears[piece->owner];
    const tsr_linear_rows rows = {
        .part = part, .first = piece->first, .count = piece->count, .bytes = bytes};
    const tsr_status st = tsr_device_load_rows(loader->args.device, &to->linear, to->memory, &rows,
                                               loader->args.stream);
    if (st == TSR_ERR_CHECKPOINT)
        return say(loader, piece, "holds NaN or infinity: export the checkpoint again");
    return st;
}

/* Numbers that the device keeps as f32: through the scratch. */
static tsr_status take_numbers(tsr_loader *loader, const tsr_piece *piece,
                               const unsigned char *bytes, tsr_linear_part part)
{
    const tsr_number_rule rule =
        part == TSR_LINEAR_SCALES ? TSR_NUMBERS_NOT_NEGATIVE : TSR_NUMBERS_FINITE;
    tsr_status st = read_numbers(loader, piece, bytes, rule);
    if (st == TSR_OK)
        st = load_rows(loader, piece, part, loader->scratch);
    return st == TSR_OK ? settle(loader, piece) : st;
}

/* Scales that stay the codes they are. */
static tsr_status take_codes(tsr_loader *loader, const tsr_piece *piece, const unsigned char *bytes)
{
    const size_t count = (size_t)piece->place.bytes;
    const size_t bad = tsr_e4m3_scales_first_bad(bytes, count);
    const size_t before =
        (size_t)piece->first * (size_t)tsr_piece_columns(loader->args.plan, piece);
    if (bad < count)
        return say_value(loader, piece, before + bad, tsr_e4m3_to_f32(bytes[bad]));
    return load_rows(loader, piece, TSR_LINEAR_SCALES, bytes);
}

/* One scale of the whole weight, or of its input. */
static tsr_status take_whole(tsr_loader *loader, const tsr_piece *piece, const unsigned char *bytes,
                             float *to)
{
    const tsr_status st = read_numbers(loader, piece, bytes, TSR_NUMBERS_POSITIVE);
    if (st == TSR_OK)
        memcpy(to, loader->scratch, sizeof(*to));
    return st;
}

static tsr_status take_small(tsr_loader *loader, const tsr_piece *piece, const unsigned char *bytes)
{
    tsr_linear *linear = &loader->linears[piece->owner].linear;
    const tsr_format_row *row = tsr_format_row_of(linear->format);

    if (piece->part == TSR_PART_GLOBAL_SCALE)
        return take_whole(loader, piece, bytes, &linear->weight_scale);
    if (piece->part == TSR_PART_INPUT_SCALE)
        return take_whole(loader, piece, bytes, &linear->input_scale);
    if (piece->part == TSR_PART_BIAS)
        return take_numbers(loader, piece, bytes, TSR_LINEAR_BIAS);
    if (piece->part == TSR_PART_PRE_QUANT_SCALE)
        return take_numbers(loader, piece, bytes, TSR_LINEAR_PRE_QUANT_SCALE);
    if (row->scales == TSR_SCALES_TENSOR)
        return take_whole(loader, piece, bytes, &linear->weight_scale);
    return tsr_dtype_is_plain(row->scale_dtype)
               ? take_numbers(loader, piece, bytes, TSR_LINEAR_SCALES)
               : take_codes(loader, piece, bytes);
}

/* Rows whose elements do not lie where the processor wants them, moved a scratch at a time. */
static tsr_status take_unaligned(tsr_loader *loader, const tsr_piece *piece,
                                 const unsigned char *bytes)
{
    const tsr_weight_format format = loader->linears[piece->owner].linear.format;
    const int32_t step = tsr_device_row_step(loader->args.device, format);
    const uint64_t row_bytes = piece->place.bytes / (uint64_t)piece->count;
    const int32_t most = (int32_t)(TSR_LOAD_SCRATCH_BYTES / (row_bytes * (uint64_t)step)) * step;
    if (most == 0)
        return say(loader, piece, "rows so long must begin at a multiple of their element");

    tsr_status st = TSR_OK;
    for (int32_t done = 0; st == TSR_OK && done < piece->count;) {
        tsr_piece part = *piece;
        part.first = piece->first + done;
        part.count = piece->count - done < most ? piece->count - done : most;
        memcpy(loader->scratch, bytes + (uint64_t)done * row_bytes,
               (size_t)part.count * (size_t)row_bytes);
        st = load_rows(loader, &part, TSR_LINEAR_WEIGHT, loader->scratch);
        if (st == TSR_OK)
            st = settle(loader, piece);
        done += part.count;
    }
    return st;
}

/* All the small pieces are there by now: they come before their weight. The view is the model's
 * once the last row is. */
static tsr_status take_weight(tsr_loader *loader, const tsr_piece *piece,
                              const unsigned char *bytes)
{
    const tsr_linear_plan *l = &loader->args.plan->linears[piece->owner];
    tsr_linear *view = tsr_weights_linear(loader->args.weights, loader->args.plan, l);
    if (view == NULL)
        return say(loader, piece, "the model has no place for it");
    if (view->weight != NULL)
        return say(loader, piece, "the plan lists it twice");

    const bool aligned = (uintptr_t)bytes % tsr_dtype_bytes(piece->place.dtype) == 0;
    const tsr_status st = aligned ? load_rows(loader, piece, TSR_LINEAR_WEIGHT, bytes)
                                  : take_unaligned(loader, piece, bytes);
    if (st == TSR_OK && piece->first + piece->count == l->out)
        *view = loader->linears[piece->owner].linear;
    return st;
}

static tsr_status take_kv_scale(tsr_loader *loader, const tsr_piece *piece,
                                const unsigned char *bytes)
{
    const tsr_vector_plan *v = &loader->args.plan->vectors[piece->owner];
    if (v->layer < 0 || v->layer >= loader->args.plan->model.layers)
        return say(loader, piece, "the model has no place for it");
    tsr_layer_weights *w = &loader->args.weights->layer[v->layer];
    return take_whole(loader, piece, bytes,
                      v->role == TSR_ROLE_K_SCALE ? &w->key_scale : &w->value_scale);
}

static tsr_status take_vector(tsr_loader *loader, const tsr_piece *piece,
                              const unsigned char *bytes)
{
    const tsr_vector_plan *v = &loader->args.plan->vectors[piece->owner];
    if (v->role == TSR_ROLE_K_SCALE || v->role == TSR_ROLE_V_SCALE)
        return take_kv_scale(loader, piece, bytes);

    tsr_status st = read_numbers(loader, piece, bytes, TSR_NUMBERS_FINITE);
    if (st != TSR_OK)
        return st;
    const float **view = tsr_weights_vector(loader->args.weights, loader->args.plan, v);
    if (view == NULL)
        return say(loader, piece, "the model has no place for it");
    if (*view != NULL)
        return say(loader, piece, "the plan lists it twice");
    float *memory = (float *)(void *)loader->vectors[piece->owner];
    st = tsr_device_put(loader->args.device, memory + piece->first, loader->scratch,
                        (size_t)piece->count * sizeof(float), loader->args.stream);
    if (st == TSR_OK)
        st = settle(loader, piece);
    if (st == TSR_OK && piece->first + piece->count == v->elements)
        *view = memory;
    return st;
}

static tsr_status take_piece(tsr_loader *loader, const tsr_piece *piece, const unsigned char *bytes)
{
    loader->bytes += piece->place.bytes;
    if (piece->part == TSR_PART_VECTOR)
        return take_vector(loader, piece, bytes);
    if (piece->part == TSR_PART_WEIGHT)
        return take_weight(loader, piece, bytes);
    return take_small(loader, piece, bytes);
}

/* Why a stretch did not come, with its first tensor. */
static tsr_status say_unread(const tsr_loader *loader, size_t stretch, tsr_stretch_bytes got,
                             tsr_status st)
{
    const tsr_plan *plan = loader->args.plan;
    const tsr_piece *piece = &loader->order.pieces[loader->order.first_piece[stretch]];
    char words[WORDS_BYTES];

    tsr_piece_words(plan, piece, sizeof(words), words);
    if (st == TSR_ERR_TIMEOUT)
        tsr_log(TSR_LOG_ERROR, "%s: not read from %s within %d s: the disk does not answer", words,
                plan->folder, loader->args.deadline_ms / MS_PER_S);
    else if (got.error != 0)
        tsr_log(TSR_LOG_ERROR, "%s: cannot be read from %s: %s", words, plan->folder,
                strerror(got.error)); /* NOLINT(concurrency-mt-unsafe) */
    else
        tsr_log(TSR_LOG_ERROR,
                "%s: the file in %s (%" PRIu64
                " bytes) is not the one that was planned with (%" PRIu64
                " bytes): give every rank the same checkpoint, whole",
                words, plan->folder, got.file_bytes, plan->marks[piece->place.file].bytes);
    return st;
}

static tsr_status take_stretch(tsr_loader *loader)
{
    const size_t s = loader->stretch;
    tsr_stretch_bytes got = {0};
    tsr_status st = tsr_read_ahead_next(loader->reader, &got);
    if (st == TSR_ERR_CHECKPOINT || st == TSR_ERR_TIMEOUT || got.error != 0)
        return say_unread(loader, s, got, st);

    const tsr_piece *piece = &loader->order.pieces[loader->order.first_piece[s]];
    const tsr_piece *end = &loader->order.pieces[loader->order.first_piece[s + 1]];
    for (; st == TSR_OK && piece < end; piece++) {
        const uint64_t at = piece->place.offset - loader->order.stretches[s].begin;
        st = take_piece(loader, piece, got.bytes + at);
    }
    loader->stretch++;
    return st == TSR_OK ? settle(loader, end - 1) : st;
}

tsr_status tsr_loader_run(tsr_loader *loader, int64_t until_ms, bool *ret_done)
{
    tsr_status st = TSR_OK;
    while (st == TSR_OK && loader->stretch < loader->order.stretch_count) {
        st = take_stretch(loader);
        if (tsr_clock_ms() >= until_ms)
            break;
    }
    const bool done = loader->stretch == loader->order.stretch_count;
    if (st == TSR_OK && done)
        st = tsr_weights_complete(loader->args.weights, loader->args.plan);
    if (st == TSR_OK)
        *ret_done = done;
    return st;
}

static tsr_status place_linear(tsr_loader *loader, const tsr_linear_plan *l, target *to)
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
    return tsr_device_place_linear(loader->args.device, &spec, to->memory, &to->linear);
}

/* Gives every linear and vector its place in the memory of the weights, in the plan's order. */
static tsr_status place_targets(tsr_loader *loader)
{
    const tsr_plan *plan = loader->args.plan;
    loader->linears =
        tsr_arena_array(loader->arena, (size_t)plan->linear_count + 1, sizeof(*loader->linears));
    loader->vectors =
        tsr_arena_array(loader->arena, (size_t)plan->vector_count + 1, sizeof(*loader->vectors));
    if (loader->linears == NULL || loader->vectors == NULL)
        return TSR_ERR_MEMORY;

    unsigned char *memory = loader->args.weights->memory;
    tsr_status st = TSR_OK;
    for (int32_t i = 0; st == TSR_OK && i < plan->linear_count; i++) {
        const tsr_linear_plan *l = &plan->linears[i];
        if (!tsr_rank_holds(plan, l, loader->args.rank))
            continue;
        loader->linears[i].memory = memory;
        st = place_linear(loader, l, &loader->linears[i]);
        memory += tsr_device_linear_bytes(loader->args.device, l->format, l->out, l->in,
                                          l->bias.file >= 0, l->pre_quant_scale.file >= 0);
    }
    for (int32_t i = 0; i < plan->vector_count; i++) {
        loader->vectors[i] = memory;
        memory += tsr_vector_bytes(&plan->vectors[i]);
    }
    return st;
}

static tsr_status take_loader_memory(tsr_loader *loader)
{
    const size_t slot = tsr_load_slot_bytes(loader->order.longest);
    tsr_status st =
        tsr_device_host_alloc(loader->args.device, TSR_LOAD_SLOTS * slot, &loader->ring);
    if (st == TSR_OK)
        st = tsr_device_host_alloc(loader->args.device, TSR_LOAD_SCRATCH_BYTES, &loader->scratch);
    if (st == TSR_OK)
        st = tsr_device_mark_open(loader->args.device, &loader->mark);
    if (st != TSR_OK) {
        tsr_log(TSR_LOG_ERROR, "no memory for the %zu bytes that weights are read through",
                TSR_LOAD_SLOTS * slot + TSR_LOAD_SCRATCH_BYTES);
        return st;
    }
    loader->reading = (tsr_reading){
        .folder = loader->args.plan->folder,
        .files = loader->args.plan->files,
        .marks = loader->args.plan->marks,
        .file_count = loader->args.plan->file_count,
        .stretches = loader->order.stretches,
        .stretch_count = loader->order.stretch_count,
        .ring = loader->ring,
        .slot_bytes = slot,
        .slots = TSR_LOAD_SLOTS,
        .deadline_ms = loader->args.deadline_ms,
    };
    return TSR_OK;
}

static tsr_status start(tsr_loader *loader)
{
    const size_t asked = loader->args.piece_bytes;
    const tsr_load_cut cut = {.device = loader->args.device,
                              .piece_bytes = asked > 0 ? asked : TSR_LOAD_PIECE_BYTES};
    tsr_status st = place_targets(loader);
    if (st == TSR_OK)
        st = tsr_load_order_make(loader->args.plan, loader->args.rank, &cut, loader->arena,
                                 &loader->order);
    if (st == TSR_OK)
        st = take_loader_memory(loader);
    return st == TSR_OK ? tsr_read_ahead_open(&loader->reading, &loader->reader) : st;
}

tsr_status tsr_loader_open(const tsr_loader_args *args, tsr_loader **ret_loader)
{
    tsr_loader *loader = calloc(1, sizeof(*loader));
    if (loader == NULL)
        return TSR_ERR_MEMORY;
    loader->args = *args;

    tsr_status st = tsr_arena_open(FIRST_BLOCK_BYTES, &loader->arena);
    if (st == TSR_OK)
        st = start(loader);
    if (st == TSR_OK)
        *ret_loader = loader;
    else
        tsr_loader_close(loader);
    return st;
}

uint64_t tsr_loader_bytes(const tsr_loader *loader)
{
    return loader->bytes;
}

uint64_t tsr_loader_total(const tsr_loader *loader)
{
    return loader->order.bytes;
}

void tsr_loader_close(tsr_loader *loader)
{
    if (loader == NULL || !tsr_read_ahead_close(loader->reader))
        return;
    tsr_device_mark_close(loader->args.device, loader->mark);
    tsr_device_host_free(loader->args.device, loader->ring);
    tsr_device_host_free(loader->args.device, loader->scratch);
    tsr_arena_close(loader->arena);
    free(loader);
}
