/*
 * A sorted list of what to read, so that files are read forward and in long stretches:
 *
 *   file     | norm | scales ...... | weight | weight | an expert elsewhere | weight | ...
 *   1st pass   ######################                                                  small ones
 *   2nd pass                          #################                       ########  by offset
 *
 * Small ones come first, since a weight is laid out with its scales at hand. A small gap is read
 * over rather than sought over; a large one, another rank's experts, begins a new stretch. The
 * order is total: the same plan reads alike in every run.
 */
#include "runtime/model/load_order.h"

#include "runtime/base/log.h"
#include "runtime/plan/modules.h"
#include "runtime/plan/shapes.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    MAX_STRETCH_BYTES = 32 << 20, /* of several pieces together; one piece may be larger */
    MAX_GAP_BYTES = 256 << 10,    /* read over rather than sought over */
    WORDS_BYTES = 512,
};

const char *tsr_part_name(tsr_part part)
{
    static const char *const name[TSR_PART_COUNT] = {
        [TSR_PART_SCALE] = "weight_scale",
        [TSR_PART_GLOBAL_SCALE] = "weight_scale_2",
        [TSR_PART_INPUT_SCALE] = "input_scale",
        [TSR_PART_PRE_QUANT_SCALE] = "pre_quant_scale",
        [TSR_PART_BIAS] = "bias",
        [TSR_PART_WEIGHT] = "weight",
        [TSR_PART_VECTOR] = "",
    };
    return name[part];
}

void tsr_piece_words(const tsr_plan *plan, const tsr_piece *piece, size_t capacity, char *ret_words)
{
    char name[TSR_MODULE_NAME_BYTES];
    bool vector = piece->part == TSR_PART_VECTOR;
    if (vector)
        tsr_vector_name(&plan->vectors[piece->owner], name);
    else
        tsr_module_name(&plan->linears[piece->owner], name);
    (void)snprintf(ret_words, capacity, "%s%s%s in %s", name, vector ? "" : ".",
                   tsr_part_name(piece->part), plan->files[piece->place.file]);
}

uint64_t tsr_piece_elements(const tsr_plan *plan, const tsr_piece *piece)
{
    if (piece->part == TSR_PART_VECTOR)
        return (uint64_t)plan->vectors[piece->owner].elements;

    const tsr_linear_plan *l = &plan->linears[piece->owner];
    if (piece->part == TSR_PART_WEIGHT)
        return (uint64_t)l->out * (uint64_t)tsr_weight_columns(l->format, l->in);
    if (piece->part == TSR_PART_SCALE) {
        tsr_scale_shape shape = tsr_scale_shape_of(l->format, l->out, l->in);
        return (uint64_t)shape.rows * (uint64_t)shape.columns;
    }
    if (piece->part == TSR_PART_PRE_QUANT_SCALE)
        return (uint64_t)l->in;
    return piece->part == TSR_PART_BIAS ? (uint64_t)l->out : 1;
}

static bool dtype_fits(const tsr_plan *plan, const tsr_piece *piece)
{
    if (piece->part == TSR_PART_VECTOR)
        return tsr_dtype_is_plain(piece->place.dtype);
    tsr_weight_format format = plan->linears[piece->owner].format;
    if (piece->part == TSR_PART_WEIGHT)
        return piece->place.dtype == tsr_format_row_of(format)->weight_dtype;
    if (piece->part == TSR_PART_SCALE)
        return tsr_scale_dtype_fits(format, piece->place.dtype);
    return tsr_dtype_is_plain(piece->place.dtype);
}

/* The plan has been proven against the headers; a plan that was sent is checked once more, because
 * every read trusts it. */
static tsr_status check_piece(const tsr_plan *plan, const tsr_piece *piece)
{
    uint64_t elements = tsr_piece_elements(plan, piece);
    uint64_t bytes = elements * tsr_dtype_bytes(piece->place.dtype);
    bool sound = piece->place.file < plan->file_count && dtype_fits(plan, piece) &&
                 bytes == piece->place.bytes && bytes > 0 &&
                 piece->place.offset <= (uint64_t)INT64_MAX - bytes;
    if (sound)
        return TSR_OK;
    if (piece->place.file >= plan->file_count) {
        tsr_log(TSR_LOG_ERROR, "the plan names file %d of %d", piece->place.file, plan->file_count);
        return TSR_ERR_CHECKPOINT;
    }

    char words[WORDS_BYTES];
    tsr_piece_words(plan, piece, sizeof(words), words);
    tsr_log(TSR_LOG_ERROR,
            "%s: %" PRIu64 " bytes of %s, but its shape takes %" PRIu64
            ": plan the checkpoint again",
            words, piece->place.bytes, tsr_dtype_name(piece->place.dtype), bytes);
    return TSR_ERR_CHECKPOINT;
}

/* Appends a piece where its tensor exists. */
static tsr_status add_piece(const tsr_plan *plan, tsr_load_order *order, tsr_piece piece)
{
    if (piece.place.file < 0)
        return TSR_OK;
    tsr_status st = check_piece(plan, &piece);
    if (st != TSR_OK)
        return st;
    order->bytes += piece.place.bytes;
    order->pieces[order->piece_count++] = piece;
    return TSR_OK;
}

static bool is_static(tsr_activation activation)
{
    return activation == TSR_ACTIVATION_FP8 || activation == TSR_ACTIVATION_NVFP4;
}

static tsr_status add_linear(const tsr_plan *plan, int32_t owner, tsr_load_order *order)
{
    const tsr_linear_plan *l = &plan->linears[owner];
    tsr_tensor_place input_scale = l->input_scale;
    if (!is_static(l->activation))
        input_scale.file = TSR_NO_FILE; /* nothing is computed with it */

    const tsr_tensor_place place[] = {
        [TSR_PART_SCALE] = l->scale,
        [TSR_PART_GLOBAL_SCALE] = l->global_scale,
        [TSR_PART_INPUT_SCALE] = input_scale,
        [TSR_PART_PRE_QUANT_SCALE] = l->pre_quant_scale,
        [TSR_PART_BIAS] = l->bias,
        [TSR_PART_WEIGHT] = l->weight,
    };
    tsr_status st = TSR_OK;
    for (int32_t p = TSR_PART_SCALE; st == TSR_OK && p <= TSR_PART_WEIGHT; p++) {
        tsr_piece piece = {
            .place = place[p], .owner = owner, .group = l->weight.file, .part = (tsr_part)p};
        st = add_piece(plan, order, piece);
    }
    return st;
}

static bool is_kv_scale(tsr_role role)
{
    return role == TSR_ROLE_K_SCALE || role == TSR_ROLE_V_SCALE;
}

static tsr_status add_vector(const tsr_plan *plan, int32_t owner, tsr_load_order *order)
{
    const tsr_vector_plan *v = &plan->vectors[owner];
    if (is_kv_scale(v->role) && plan->kv_format != TSR_KV_FP8)
        return TSR_OK;
    tsr_piece piece = {
        .place = v->place, .owner = owner, .group = v->place.file, .part = TSR_PART_VECTOR};
    return add_piece(plan, order, piece);
}

static int before(uint64_t a, uint64_t b)
{
    return (a > b) - (a < b);
}

/* By turn, small ones first, as they lie; the rest only makes the order total. */
static int compare(const void *left, const void *right)
{
    const tsr_piece *a = left;
    const tsr_piece *b = right;
    int c = before((uint64_t)a->group, (uint64_t)b->group);
    if (c == 0)
        c = before(a->part == TSR_PART_WEIGHT, b->part == TSR_PART_WEIGHT);
    if (c == 0)
        c = before((uint64_t)a->place.file, (uint64_t)b->place.file);
    if (c == 0)
        c = before(a->place.offset, b->place.offset);
    if (c == 0)
        c = before((uint64_t)a->part, (uint64_t)b->part);
    return c != 0 ? c : before((uint64_t)a->owner, (uint64_t)b->owner);
}

/* Pieces follow each other in the order they are used: one that lies further front begins anew. */
static bool joins(const tsr_stretch *s, const tsr_tensor_place *next)
{
    return next->file == s->file && next->offset >= s->begin &&
           next->offset <= s->end + MAX_GAP_BYTES &&
           next->offset + next->bytes - s->begin <= MAX_STRETCH_BYTES;
}

static void cut(tsr_load_order *order)
{
    for (size_t i = 0; i < order->piece_count; i++) {
        const tsr_piece *p = &order->pieces[i];
        uint64_t end = p->place.offset + p->place.bytes;
        tsr_stretch *last = order->stretches + order->stretch_count;
        if (order->stretch_count > 0 && joins(last - 1, &p->place)) {
            if (end > last[-1].end)
                last[-1].end = end;
            continue;
        }
        *last = (tsr_stretch){.begin = p->place.offset, .end = end, .file = p->place.file};
        order->first_piece[order->stretch_count++] = i;
    }
    order->first_piece[order->stretch_count] = order->piece_count;
}

tsr_status tsr_load_order_make(const tsr_plan *plan, int32_t rank, tsr_arena *arena,
                               tsr_load_order *ret_order)
{
    size_t most = (size_t)plan->vector_count;
    for (int32_t i = 0; i < plan->linear_count; i++)
        most += tsr_rank_holds(plan, &plan->linears[i], rank) ? TSR_PART_WEIGHT + 1 : 0;

    tsr_load_order order = {0};
    order.pieces = tsr_arena_array(arena, most + 1, sizeof(*order.pieces));
    order.stretches = tsr_arena_array(arena, most + 1, sizeof(*order.stretches));
    order.first_piece = tsr_arena_array(arena, most + 1, sizeof(*order.first_piece));
    if (order.pieces == NULL || order.stretches == NULL || order.first_piece == NULL)
        return TSR_ERR_MEMORY;

    tsr_status st = TSR_OK;
    for (int32_t i = 0; st == TSR_OK && i < plan->linear_count; i++) {
        if (tsr_rank_holds(plan, &plan->linears[i], rank))
            st = add_linear(plan, i, &order);
    }
    for (int32_t i = 0; st == TSR_OK && i < plan->vector_count; i++)
        st = add_vector(plan, i, &order);
    if (st != TSR_OK)
        return st;

    qsort(order.pieces, order.piece_count, sizeof(*order.pieces), compare);
    cut(&order);
    *ret_order = order;
    return TSR_OK;
}
