/*
 * From files to the device, in one of two ways. Where the device works on a stream, a piece at a
 * time, by a thread that reads ahead:
 *
 *   file --reader--> | slot 0 | slot 1 | --device_load_rows--> weights
 *
 * A slot is given up once the stream has passed what was put from it. Where the device computes on
 * the host, by as many threads as it lets (load_hands.h), each of which lays out what it has read.
 */
#include "runtime/model/load_weights.h"

#include "runtime/base/arena.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/base/sizes.h"
#include "runtime/model/load_hands.h"
#include "runtime/model/load_order.h"
#include "runtime/model/load_share.h"
#include "runtime/model/load_take.h"
#include "runtime/model/read_ahead.h"
#include "runtime/plan/loading.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_BLOCK_BYTES = 1 << 16, WORDS_BYTES = 512, MS_PER_S = 1000 };

struct tsr_loader {
    tsr_loader_args args;
    tsr_arena *arena; /* lives as long as the loader */
    tsr_load_order order;
    tsr_load_targets targets;
    tsr_hands *hands; /* NULL: by a reader and the caller */
    tsr_reading reading;
    tsr_read_ahead *reader;
    tsr_taker taker; /* the caller */
    void *rooms;     /* host memory of the device: slots, and scratches of the hands */
    void *scratch;   /* [TSR_LOAD_SCRATCH_BYTES], the caller's */
    size_t stretch;  /* next one */
    uint64_t bytes;  /* laid out, as last told */
    char words[TSR_LOAD_WORDS_BYTES];
};

/* Most tensors are on every rank: of those that find the same, the first to say it is enough. */
static bool is_said(const tsr_loader *loader)
{
    return loader->args.comm != NULL && tsr_comm_cause(loader->args.comm) == TSR_ERR_CHECKPOINT;
}

/* What is wrong with a tensor that was read. */
static tsr_status say(const tsr_loader *loader, const char *words, tsr_status st)
{
    if (words[0] != '\0' && !(st == TSR_ERR_CHECKPOINT && is_said(loader)))
        tsr_log(TSR_LOG_ERROR, "%s", words);
    if (st == TSR_ERR_CHECKPOINT && loader->args.comm != NULL)
        tsr_comm_abort(loader->args.comm, st);
    return st;
}

/* Why a stretch or share did not come, with its first tensor. */
static tsr_status say_unread(const tsr_loader *loader, const tsr_piece *piece,
                             tsr_stretch_bytes got, tsr_status st)
{
    const tsr_plan *plan = loader->args.plan;
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
    const tsr_piece *piece = &loader->order.pieces[loader->order.first_piece[s]];
    const tsr_piece *end = &loader->order.pieces[loader->order.first_piece[s + 1]];
    tsr_stretch_bytes got = {0};
    tsr_status st = tsr_read_ahead_next(loader->reader, &got);
    if (st == TSR_ERR_CHECKPOINT || st == TSR_ERR_TIMEOUT || got.error != 0)
        return say_unread(loader, piece, got, st);

    for (; st == TSR_OK && piece < end; piece++) {
        const uint64_t at = piece->place.offset - loader->order.stretches[s].begin;
        st = tsr_take_piece(&loader->taker, piece, got.bytes + at);
        loader->bytes += piece->place.bytes;
    }
    loader->stretch++;
    if (st == TSR_OK)
        st = tsr_taker_settle(&loader->taker, end - 1);
    return st == TSR_OK ? st : say(loader, loader->words, st);
}

static tsr_status take_stretches(tsr_loader *loader, int64_t until_ms, bool *ret_done)
{
    tsr_status st = TSR_OK;
    while (st == TSR_OK && loader->stretch < loader->order.stretch_count) {
        st = take_stretch(loader);
        if (tsr_clock_ms() >= until_ms)
            break;
    }
    *ret_done = loader->stretch == loader->order.stretch_count;
    return st;
}

static tsr_status wait_for_hands(tsr_loader *loader, int64_t until_ms, bool *ret_done)
{
    tsr_hands_failure failure = {0};
    const tsr_status st =
        tsr_hands_wait(loader->hands, until_ms, &loader->bytes, ret_done, &failure);

    if (st != TSR_OK && failure.unread && (st != TSR_ERR_MEMORY || failure.bytes.error != 0))
        return say_unread(loader, failure.piece, failure.bytes, st);
    return st == TSR_OK ? st : say(loader, failure.words, st);
}

tsr_status tsr_loader_run(tsr_loader *loader, int64_t until_ms, bool *ret_done)
{
    bool done = false;
    tsr_status st = loader->hands != NULL ? wait_for_hands(loader, until_ms, &done)
                                          : take_stretches(loader, until_ms, &done);
    if (st == TSR_OK && done)
        st = tsr_weights_complete(loader->args.weights, loader->args.plan);
    if (st == TSR_OK)
        *ret_done = done;
    return st;
}

static tsr_status say_no_memory(size_t bytes, tsr_status st)
{
    tsr_log(TSR_LOG_ERROR, "no memory for the %zu bytes that weights are read through", bytes);
    return st;
}

/* A reader and the caller. */
static tsr_status start_reading(tsr_loader *loader)
{
    tsr_device *device = loader->args.device;
    const tsr_plan *plan = loader->args.plan;
    const size_t slot = tsr_load_slot_bytes(loader->order.longest);
    tsr_status st = tsr_device_host_alloc(device, TSR_LOAD_SLOTS * slot, &loader->rooms);
    if (st == TSR_OK)
        st = tsr_device_host_alloc(device, TSR_LOAD_SCRATCH_BYTES, &loader->scratch);
    if (st == TSR_OK)
        st = tsr_device_mark_open(device, &loader->taker.mark);
    if (st != TSR_OK)
        return say_no_memory(TSR_LOAD_SLOTS * slot + TSR_LOAD_SCRATCH_BYTES, st);

    loader->taker.args = &loader->args;
    loader->taker.targets = &loader->targets;
    loader->taker.scratch = loader->scratch;
    loader->taker.scratch_bytes = TSR_LOAD_SCRATCH_BYTES;
    loader->taker.words = loader->words;
    loader->reading = (tsr_reading){
        .folder = plan->folder,
        .files = plan->files,
        .marks = plan->marks,
        .file_count = plan->file_count,
        .stretches = loader->order.stretches,
        .stretch_count = loader->order.stretch_count,
        .ring = loader->rooms,
        .slot_bytes = slot,
        .slots = TSR_LOAD_SLOTS,
        .deadline_ms = loader->args.deadline_ms,
    };
    return tsr_read_ahead_open(&loader->reading, &loader->reader);
}

/* As many as the device lets, and as what the plan counts has room for. A share's numbers take at
 * most twice its room as f32. */
static tsr_status start_hands(tsr_loader *loader, int32_t most)
{
    const size_t counted =
        TSR_LOAD_SLOTS * tsr_load_slot_bytes(loader->order.longest) + TSR_LOAD_SCRATCH_BYTES;
    tsr_hands_args args = {
        .loader = &loader->args,
        .targets = &loader->targets,
        .shares = {.plan = loader->args.plan,
                   .device = loader->args.device,
                   .order = &loader->order,
                   .most = loader->args.share_bytes > 0 ? loader->args.share_bytes
                                                        : TSR_LOAD_SHARE_BYTES},
    };
    const uint64_t longest = tsr_load_share_longest(&args.shares);
    args.slot_bytes = tsr_load_slot_bytes(longest);
    args.scratch_bytes =
        (size_t)tsr_smaller_size(tsr_aligned(2 * longest, TSR_ALIGNMENT), TSR_LOAD_SCRATCH_BYTES);
    const size_t room = args.slot_bytes + args.scratch_bytes;
    args.count = (int32_t)tsr_smaller_size((uint64_t)most, counted / room);
    const tsr_status st =
        tsr_device_host_alloc(loader->args.device, (size_t)args.count * room, &loader->rooms);
    if (st != TSR_OK)
        return say_no_memory((size_t)args.count * room, st);
    args.rooms = loader->rooms;
    return tsr_hands_open(&args, &loader->hands);
}

static tsr_status start(tsr_loader *loader)
{
    const tsr_loader_args *args = &loader->args;
    const int32_t loaders = tsr_device_loaders(args->device);
    const tsr_load_cut cut = {.device = args->device,
                              .piece_bytes =
                                  args->piece_bytes > 0 ? args->piece_bytes : TSR_LOAD_PIECE_BYTES};
    tsr_status st =
        tsr_load_order_make(args->plan, args->rank, &cut, loader->arena, &loader->order);
    if (st != TSR_OK)
        return st;
    st = tsr_load_targets_place(args, loader->arena, loader->words, &loader->targets);
    if (st != TSR_OK)
        return say(loader, loader->words, st);
    return loaders > 0 ? start_hands(loader, loaders) : start_reading(loader);
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
    if (loader == NULL || !tsr_read_ahead_close(loader->reader) || !tsr_hands_close(loader->hands))
        return;
    tsr_device_mark_close(loader->args.device, loader->taker.mark);
    tsr_device_host_free(loader->args.device, loader->rooms);
    tsr_device_host_free(loader->args.device, loader->scratch);
    tsr_arena_close(loader->arena);
    free(loader);
}
