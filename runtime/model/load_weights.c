/* Each piece is taken once, in the loader's order: small ones wait, decoded, for their weight. */
#include "runtime/model/load_weights.h"

#include "runtime/base/arena.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/base/numeric.h"
#include "runtime/model/load_order.h"
#include "runtime/model/read_ahead.h"
#include "runtime/model/stored_numbers.h"
#include "runtime/plan/shapes.h"

#include <inttypes.h>
#include <stdlib.h>

enum { FIRST_BLOCK_BYTES = 1 << 20, WORDS_BYTES = 512 };

/* Where a linear's or a vector's bytes go in the device memory of the weights. */
typedef struct target {
    tsr_linear_source source; /* filled piece by piece */
    unsigned char *memory;
} target;

struct tsr_loader {
    const tsr_plan *plan;
    tsr_device *device;
    tsr_weights *weights;
    tsr_arena *arena;   /* lives as long as the loader */
    tsr_arena *waiting; /* small pieces of the file whose turn it is */
    tsr_reading reading;
    tsr_read_ahead *reader;
    tsr_load_order order;
    target *linears;         /* [linear_count]; memory NULL: on another rank */
    unsigned char **vectors; /* [vector_count] */
    size_t stretch;          /* next one */
    int32_t group;           /* whose pieces are in `waiting` */
    uint64_t bytes;          /* laid out */
};

static tsr_status say(const tsr_loader *loader, const tsr_piece *piece, const char *what)
{
    char words[WORDS_BYTES];
    tsr_piece_words(loader->plan, piece, sizeof(words), words);
    tsr_log(TSR_LOG_ERROR, "%s: %s", words, what);
    return TSR_ERR_CHECKPOINT;
}

static tsr_status say_value(const tsr_loader *loader, const tsr_piece *piece, size_t index,
                            float value)
{
    char words[WORDS_BYTES];
    tsr_piece_words(loader->plan, piece, sizeof(words), words);
    tsr_log(TSR_LOG_ERROR, "%s: element %zu is %g, which cannot be: export the checkpoint again",
            words, index, (double)value);
    return TSR_ERR_CHECKPOINT;
}

/* A piece's numbers as f32 in the waiting arena, checked. */
static tsr_status read_numbers(tsr_loader *loader, const tsr_piece *piece,
                               const unsigned char *bytes, tsr_number_rule rule, float **ret)
{
    size_t count = (size_t)tsr_piece_elements(loader->plan, piece);
    float *values = tsr_arena_array(loader->waiting, count, sizeof(*values));
    if (values == NULL)
        return TSR_ERR_MEMORY;
    tsr_numbers_read(piece->place.dtype, bytes, count, values);
    size_t bad = tsr_numbers_first_bad(values, count, rule);
    if (bad < count)
        return say_value(loader, piece, bad, values[bad]);
    *ret = values;
    return TSR_OK;
}

static tsr_status take_group_scales(tsr_loader *loader, const tsr_piece *piece,
                                    const unsigned char *bytes, tsr_linear_source *source)
{
    size_t count = (size_t)piece->place.bytes;
    size_t bad = tsr_e4m3_scales_first_bad(bytes, count);
    if (bad < count)
        return say_value(loader, piece, bad, tsr_e4m3_to_f32(bytes[bad]));
    unsigned char *codes = tsr_arena_alloc(loader->waiting, count);
    if (codes == NULL)
        return TSR_ERR_MEMORY;
    memcpy(codes, bytes, count);
    source->scales = codes;
    return TSR_OK;
}

static tsr_status take_scale(tsr_loader *loader, const tsr_piece *piece, const unsigned char *bytes,
                             tsr_linear_source *source)
{
    const tsr_format_row *row = tsr_format_row_of(source->format);
    if (!tsr_dtype_is_plain(row->scale_dtype))
        return take_group_scales(loader, piece, bytes, source);

    bool whole = row->scales == TSR_SCALES_TENSOR;
    tsr_number_rule rule = whole ? TSR_NUMBERS_POSITIVE : TSR_NUMBERS_NOT_NEGATIVE;
    float *values = NULL;
    tsr_status st = read_numbers(loader, piece, bytes, rule, &values);
    if (st != TSR_OK)
        return st;
    if (whole)
        source->weight_scale = values[0];
    else
        source->scales = values;
    return TSR_OK;
}

static tsr_status take_small(tsr_loader *loader, const tsr_piece *piece, const unsigned char *bytes,
                             tsr_linear_source *source)
{
    if (piece->part == TSR_PART_SCALE)
        return take_scale(loader, piece, bytes, source);

    bool of_tensor = piece->part == TSR_PART_GLOBAL_SCALE || piece->part == TSR_PART_INPUT_SCALE;
    tsr_number_rule rule = of_tensor ? TSR_NUMBERS_POSITIVE : TSR_NUMBERS_FINITE;
    float *values = NULL;
    tsr_status st = read_numbers(loader, piece, bytes, rule, &values);
    if (st != TSR_OK)
        return st;
    if (piece->part == TSR_PART_GLOBAL_SCALE)
        source->weight_scale = values[0];
    else if (piece->part == TSR_PART_INPUT_SCALE)
        source->input_scale = values[0];
    else if (piece->part == TSR_PART_PRE_QUANT_SCALE)
        source->pre_quant_scale = values;
    else
        source->bias = values;
    return TSR_OK;
}

/* All the small pieces are there by now: they come before their weight. */
static tsr_status take_weight(tsr_loader *loader, const tsr_piece *piece,
                              const unsigned char *bytes)
{
    target *to = &loader->linears[piece->owner];
    tsr_linear *view =
        tsr_weights_linear(loader->weights, loader->plan, &loader->plan->linears[piece->owner]);
    if (view == NULL)
        return say(loader, piece, "the model has no place for it");
    if (view->weight != NULL)
        return say(loader, piece, "the plan lists it twice");

    unsigned char *copy = NULL;
    if ((uintptr_t)bytes % tsr_dtype_bytes(piece->place.dtype) != 0) {
        copy = malloc((size_t)piece->place.bytes);
        if (copy == NULL)
            return TSR_ERR_MEMORY;
        memcpy(copy, bytes, (size_t)piece->place.bytes);
    }
    to->source.weight = copy != NULL ? copy : bytes;
    tsr_status st = tsr_device_load_linear(loader->device, &to->source, to->memory, view);
    free(copy);
    if (st == TSR_ERR_CHECKPOINT)
        return say(loader, piece, "holds NaN or infinity: export the checkpoint again");
    return st;
}

static tsr_status take_vector(tsr_loader *loader, const tsr_piece *piece,
                              const unsigned char *bytes)
{
    const tsr_vector_plan *v = &loader->plan->vectors[piece->owner];
    bool kv_scale = v->role == TSR_ROLE_K_SCALE || v->role == TSR_ROLE_V_SCALE;
    float *values = NULL;
    tsr_status st = read_numbers(loader, piece, bytes,
                                 kv_scale ? TSR_NUMBERS_POSITIVE : TSR_NUMBERS_FINITE, &values);
    if (st != TSR_OK)
        return st;

    if (kv_scale) {
        if (v->layer < 0 || v->layer >= loader->plan->model.layers)
            return say(loader, piece, "the model has no place for it");
        tsr_layer_weights *w = &loader->weights->layer[v->layer];
        *(v->role == TSR_ROLE_K_SCALE ? &w->key_scale : &w->value_scale) = values[0];
        return TSR_OK;
    }
    const float **view = tsr_weights_vector(loader->weights, loader->plan, v);
    if (view == NULL)
        return say(loader, piece, "the model has no place for it");
    if (*view != NULL)
        return say(loader, piece, "the plan lists it twice");
    void *memory = loader->vectors[piece->owner];
    st = tsr_device_put(loader->device, memory, values, (size_t)v->elements * sizeof(float),
                        (tsr_stream){0});
    if (st == TSR_OK)
        *view = memory;
    return st;
}

static tsr_status take(tsr_loader *loader, const tsr_piece *piece, const unsigned char *bytes)
{
    if (piece->group != loader->group) {
        tsr_arena_reset(loader->waiting);
        loader->group = piece->group;
    }
    loader->bytes += piece->place.bytes;
    if (piece->part == TSR_PART_VECTOR)
        return take_vector(loader, piece, bytes);
    if (piece->part == TSR_PART_WEIGHT)
        return take_weight(loader, piece, bytes);
    return take_small(loader, piece, bytes, &loader->linears[piece->owner].source);
}

/* Why a stretch did not come, with its first tensor. */
static tsr_status say_unread(const tsr_loader *loader, size_t stretch, tsr_stretch_bytes got)
{
    const tsr_plan *plan = loader->plan;
    const tsr_piece *piece = &loader->order.pieces[loader->order.first_piece[stretch]];
    char words[WORDS_BYTES];

    tsr_piece_words(plan, piece, sizeof(words), words);
    if (got.error != 0)
        tsr_log(TSR_LOG_ERROR, "%s: cannot be read from %s: %s", words, plan->folder,
                strerror(got.error)); /* NOLINT(concurrency-mt-unsafe) */
    else
        tsr_log(TSR_LOG_ERROR,
                "%s: the file in %s (%" PRIu64
                " bytes) is not the one that was planned with (%" PRIu64
                " bytes): give every rank the same checkpoint, whole",
                words, plan->folder, got.file_bytes, plan->marks[piece->place.file].bytes);
    return TSR_ERR_CHECKPOINT;
}

static tsr_status take_stretch(tsr_loader *loader)
{
    size_t s = loader->stretch;
    tsr_stretch_bytes got;
    tsr_status st = tsr_read_ahead_next(loader->reader, &got);
    if (st == TSR_ERR_CHECKPOINT)
        return say_unread(loader, s, got);

    for (size_t i = loader->order.first_piece[s];
         st == TSR_OK && i < loader->order.first_piece[s + 1]; i++) {
        const tsr_piece *piece = &loader->order.pieces[i];
        uint64_t at = piece->place.offset - loader->order.stretches[s].begin;
        st = take(loader, piece, got.bytes + at);
    }
    loader->stretch++;
    return st;
}

tsr_status tsr_loader_run(tsr_loader *loader, int64_t until_ms, bool *ret_done)
{
    tsr_status st = TSR_OK;
    while (st == TSR_OK && loader->stretch < loader->order.stretch_count) {
        st = take_stretch(loader);
        if (tsr_clock_ms() >= until_ms)
            break;
    }
    bool done = loader->stretch == loader->order.stretch_count;
    if (st == TSR_OK && done)
        st = tsr_weights_complete(loader->weights, loader->plan);
    if (st == TSR_OK)
        *ret_done = done;
    return st;
}

static tsr_linear_source empty_source(const tsr_linear_plan *l)
{
    return (tsr_linear_source){
        .format = l->format,
        .activation = l->activation,
        .out = l->out,
        .in = l->in,
        .weight_scale = 1,
        .input_scale = 1,
    };
}

/* Gives every linear and vector its place in the memory of the weights, in the plan's order. */
static tsr_status place_targets(tsr_loader *loader, int32_t rank)
{
    const tsr_plan *plan = loader->plan;
    loader->linears =
        tsr_arena_array(loader->arena, (size_t)plan->linear_count + 1, sizeof(*loader->linears));
    loader->vectors =
        tsr_arena_array(loader->arena, (size_t)plan->vector_count + 1, sizeof(*loader->vectors));
    if (loader->linears == NULL || loader->vectors == NULL)
        return TSR_ERR_MEMORY;

    unsigned char *memory = loader->weights->memory;
    for (int32_t i = 0; i < plan->linear_count; i++) {
        const tsr_linear_plan *l = &plan->linears[i];
        if (!tsr_rank_holds(plan, l, rank))
            continue;
        loader->linears[i] = (target){.source = empty_source(l), .memory = memory};
        memory += tsr_device_linear_bytes(loader->device, l->format, l->out, l->in,
                                          l->bias.file >= 0, l->pre_quant_scale.file >= 0);
    }
    for (int32_t i = 0; i < plan->vector_count; i++) {
        loader->vectors[i] = memory;
        memory += tsr_vector_bytes(&plan->vectors[i]);
    }
    return TSR_OK;
}

static tsr_status start(tsr_loader *loader, int32_t rank)
{
    tsr_status st = place_targets(loader, rank);
    if (st == TSR_OK)
        st = tsr_load_order_make(loader->plan, rank, loader->arena, &loader->order);
    if (st != TSR_OK)
        return st;
    loader->reading = (tsr_reading){
        .folder = loader->plan->folder,
        .files = loader->plan->files,
        .marks = loader->plan->marks,
        .file_count = loader->plan->file_count,
        .stretches = loader->order.stretches,
        .stretch_count = loader->order.stretch_count,
    };
    return tsr_read_ahead_open(&loader->reading, &loader->reader);
}

tsr_status tsr_loader_open(const tsr_plan *plan, tsr_device *device, int32_t rank,
                           tsr_weights *weights, tsr_loader **ret_loader)
{
    tsr_loader *loader = calloc(1, sizeof(*loader));
    if (loader == NULL)
        return TSR_ERR_MEMORY;
    loader->plan = plan;
    loader->device = device;
    loader->weights = weights;
    loader->group = -1;

    tsr_status st = tsr_arena_open(FIRST_BLOCK_BYTES, &loader->arena);
    if (st == TSR_OK)
        st = tsr_arena_open(FIRST_BLOCK_BYTES, &loader->waiting);
    if (st == TSR_OK)
        st = start(loader, rank);
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
    if (loader == NULL)
        return;
    tsr_read_ahead_close(loader->reader);
    tsr_arena_close(loader->waiting);
    tsr_arena_close(loader->arena);
    free(loader);
}
