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
 *
 * Pieces are counted first, then written: the same walk over the plan does both.
 */
#include "runtime/model/load_order.h"

#include "runtime/base/log.h"
#include "runtime/plan/algos.h"
#include "runtime/plan/loading.h"
#include "runtime/plan/modules.h"
#include "runtime/plan/shapes.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    MAX_GAP_BYTES = 256 << 10, /* read over rather than sought over */
    WORDS_BYTES = 512,
};

/* What the plan counts for each of them, and for the copy that sorting may take. */
_Static_assert(2 * sizeof(tsr_piece) + sizeof(tsr_stretch) + sizeof(size_t) <=
                   TSR_LOAD_PIECE_RECORD_BYTES,
               "the plan counts too little for a piece");

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
    const bool vector = piece->part == TSR_PART_VECTOR;
    if (vector)
        tsr_vector_name(&plan->vectors[piece->owner], name);
    else
        tsr_module_name(&plan->linears[piece->owner], name);
    (void)snprintf(ret_words, capacity, "%s%s%s in %s", name, vector ? "" : ".",
                   tsr_part_name(piece->part), plan->files[piece->place.file]);
}

int32_t tsr_piece_rows(const tsr_plan *plan, const tsr_piece *piece)
{
    if (piece->part == TSR_PART_VECTOR)
        return plan->vectors[piece->owner].elements;

    const tsr_linear_plan *l = &plan->linears[piece->owner];
    if (piece->part == TSR_PART_SCALE)
        return tsr_scale_shape_of(l->format, l->out, l->in).rows;
    if (piece->part == TSR_PART_PRE_QUANT_SCALE)
        return l->in;
    return piece->part == TSR_PART_BIAS || piece->part == TSR_PART_WEIGHT ? l->out : 1;
}

int32_t tsr_piece_columns(const tsr_plan *plan, const tsr_piece *piece)
{
    if (piece->part != TSR_PART_WEIGHT && piece->part != TSR_PART_SCALE)
        return 1;

    const tsr_linear_plan *l = &plan->linears[piece->owner];
    return piece->part == TSR_PART_WEIGHT ? tsr_weight_columns(l->format, l->in)
                                          : tsr_scale_shape_of(l->format, l->out, l->in).columns;
}

static bool dtype_fits(const tsr_plan *plan, const tsr_piece *piece)
{
    if (piece->part == TSR_PART_VECTOR)
        return tsr_dtype_is_plain(piece->place.dtype);
    const tsr_weight_format format = plan->linears[piece->owner].format;
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
    const int32_t rows = tsr_piece_rows(plan, piece);
    const uint64_t elements =
        rows > 0 ? (uint64_t)rows * (uint64_t)tsr_piece_columns(plan, piece) : 0;
    const uint64_t bytes = elements * tsr_dtype_bytes(piece->place.dtype);
    const bool sound = piece->place.file < plan->file_count && dtype_fits(plan, piece) &&
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

/* The order while it is made; the arrays are NULL while pieces are counted. */
typedef struct draft {
    const tsr_plan *plan;
    const tsr_load_cut *cut;
    tsr_load_order order;
} draft;

/* Rows that belong together: a step of the device's, of a weight. */
static int32_t step_of(const draft *d, const tsr_piece *whole)
{
    if (whole->part != TSR_PART_WEIGHT)
        return 1;
    return tsr_device_row_step(d->cut->device, d->plan->linears[whole->owner].format);
}

/* Rows that are read at once at most: whole steps, and no more numbers than are turned into f32 at
 * once. */
static int32_t rows_of_a_piece(const draft *d, const tsr_piece *whole, uint64_t row_bytes,
                               int32_t step)
{
    size_t most = d->cut->piece_bytes;
    if (whole->part != TSR_PART_WEIGHT && tsr_dtype_is_plain(whole->place.dtype)) {
        const size_t numbers = TSR_LOAD_SCRATCH_BYTES / sizeof(float);
        const size_t bytes = numbers * tsr_dtype_bytes(whole->place.dtype);
        most = bytes < most ? bytes : most;
    }
    const uint64_t steps = most / (row_bytes * (uint64_t)step);
    return steps < (uint64_t)(INT32_MAX / step) ? (int32_t)steps * step : INT32_MAX / step * step;
}

static void append(draft *d, tsr_piece piece)
{
    if (d->order.pieces != NULL)
        d->order.pieces[d->order.piece_count] = piece;
    d->order.piece_count++;
    d->order.bytes += piece.place.bytes;
}

/* Appends a tensor, where it exists, as one piece or several. */
static tsr_status add_tensor(draft *d, tsr_piece whole)
{
    if (whole.place.file < 0)
        return TSR_OK;
    const tsr_status st = check_piece(d->plan, &whole);
    if (st != TSR_OK)
        return st;

    const int32_t rows = tsr_piece_rows(d->plan, &whole);
    const uint64_t row_bytes = whole.place.bytes / (uint64_t)rows;
    const int32_t step = step_of(d, &whole);
    const int32_t most = rows_of_a_piece(d, &whole, row_bytes, step);
    if (most == 0) {
        char words[WORDS_BYTES];
        tsr_piece_words(d->plan, &whole, sizeof(words), words);
        tsr_log(TSR_LOG_ERROR,
                "%s: its rows of %" PRIu64
                " bytes, %d together, are too long: %zu bytes are read at "
                "once",
                words, row_bytes, step, d->cut->piece_bytes);
        return TSR_ERR_CHECKPOINT;
    }
    for (int32_t first = 0; first < rows;) {
        tsr_piece piece = whole;
        piece.first = first;
        piece.count = rows - first < most ? rows - first : most;
        piece.place.offset += (uint64_t)first * row_bytes;
        piece.place.bytes = (uint64_t)piece.count * row_bytes;
        append(d, piece);
        first += piece.count;
    }
    return TSR_OK;
}

/* A weight has the scales of its format, all of them and no others: the reader of a plan that was
 * sent relies on it. */
static tsr_status check_scales(const draft *d, int32_t owner)
{
    const tsr_linear_plan *l = &d->plan->linears[owner];
    const tsr_format_row *row = tsr_format_row_of(l->format);
    if ((row->scales != TSR_SCALES_NONE) == (l->scale.file >= 0) &&
        row->global_scale == (l->global_scale.file >= 0))
        return TSR_OK;

    char name[TSR_MODULE_NAME_BYTES];
    tsr_module_name(l, name);
    tsr_log(TSR_LOG_ERROR, "%s: the plan does not have the scales of %s for it", name, row->name);
    return TSR_ERR_CHECKPOINT;
}

static tsr_status add_linear(draft *d, int32_t owner)
{
    const tsr_linear_plan *l = &d->plan->linears[owner];
    tsr_tensor_place input_scale = l->input_scale;
    if (!tsr_activation_is_static(l->activation))
        input_scale.file = TSR_NO_FILE; /* nothing is computed with it */

    const tsr_tensor_place place[] = {
        [TSR_PART_SCALE] = l->scale,
        [TSR_PART_GLOBAL_SCALE] = l->global_scale,
        [TSR_PART_INPUT_SCALE] = input_scale,
        [TSR_PART_PRE_QUANT_SCALE] = l->pre_quant_scale,
        [TSR_PART_BIAS] = l->bias,
        [TSR_PART_WEIGHT] = l->weight,
    };
    tsr_status st = l->weight.file >= 0 ? check_scales(d, owner) : TSR_OK;
    for (int32_t p = TSR_PART_SCALE; st == TSR_OK && p <= TSR_PART_WEIGHT; p++) {
        const tsr_piece whole = {
            .place = place[p], .owner = owner, .group = l->weight.file, .part = (tsr_part)p};
        st = add_tensor(d, whole);
    }
    return st;
}

static tsr_status add_vector(draft *d, int32_t owner)
{
    const tsr_vector_plan *v = &d->plan->vectors[owner];
    if (tsr_role_is_kv_scale(v->role) && d->plan->kv_format != TSR_KV_FP8)
        return TSR_OK;
    const tsr_piece whole = {
        .place = v->place, .owner = owner, .group = v->place.file, .part = TSR_PART_VECTOR};
    return add_tensor(d, whole);
}

/* Every piece of a rank: counted, or written where there are arrays. */
static tsr_status add_all(draft *d, int32_t rank)
{
    const tsr_plan *plan = d->plan;
    tsr_status st = TSR_OK;

    d->order.piece_count = 0;
    d->order.bytes = 0;
    for (int32_t i = 0; st == TSR_OK && i < plan->linear_count; i++) {
        if (tsr_rank_holds(plan, &plan->linears[i], rank))
            st = add_linear(d, i);
    }
    for (int32_t i = 0; st == TSR_OK && i < plan->vector_count; i++)
        st = add_vector(d, i);
    return st;
}

static int before(uint64_t a, uint64_t b)
{
    return (a > b) - (a < b);
}

/* By turn, small ones first, as they lie; the rest only makes the order total. */
static int compare_pieces(const void *left, const void *right)
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
static bool joins(const tsr_stretch *s, const tsr_tensor_place *next, size_t most)
{
    return next->file == s->file && next->offset >= s->begin &&
           next->offset <= s->end + MAX_GAP_BYTES && next->offset + next->bytes - s->begin <= most;
}

static void gather(tsr_load_order *order, size_t most)
{
    for (size_t i = 0; i < order->piece_count; i++) {
        const tsr_piece *p = &order->pieces[i];
        const uint64_t end = p->place.offset + p->place.bytes;
        tsr_stretch *last = order->stretches + order->stretch_count;
        if (order->stretch_count > 0 && joins(last - 1, &p->place, most)) {
            if (end > last[-1].end)
                last[-1].end = end;
            continue;
        }
        *last = (tsr_stretch){.begin = p->place.offset, .end = end, .file = p->place.file};
        order->first_piece[order->stretch_count++] = i;
    }
    order->first_piece[order->stretch_count] = order->piece_count;
    for (size_t i = 0; i < order->stretch_count; i++) {
        const uint64_t bytes = order->stretches[i].end - order->stretches[i].begin;
        order->longest = bytes > order->longest ? bytes : order->longest;
    }
}

tsr_status tsr_load_order_make(const tsr_plan *plan, int32_t rank, const tsr_load_cut *cut,
                               tsr_arena *arena, tsr_load_order *ret_order)
{
    draft d = {.plan = plan, .cut = cut};
    tsr_load_order *order = &d.order;
    tsr_status st = add_all(&d, rank);
    if (st != TSR_OK)
        return st;

    order->pieces = tsr_arena_array(arena, order->piece_count + 1, sizeof(*order->pieces));
    order->stretches = tsr_arena_array(arena, order->piece_count + 1, sizeof(*order->stretches));
    order->first_piece =
        tsr_arena_array(arena, order->piece_count + 1, sizeof(*order->first_piece));
    if (order->pieces == NULL || order->stretches == NULL || order->first_piece == NULL)
        return TSR_ERR_MEMORY;

    st = add_all(&d, rank);
    if (st != TSR_OK)
        return st;
    qsort(order->pieces, order->piece_count, sizeof(*order->pieces), compare_pieces);
    gather(order, cut->piece_bytes);
    *ret_order = *order;
    return TSR_OK;
}
