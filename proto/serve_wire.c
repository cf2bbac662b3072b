/* Every kind is a row: how it is packed from the plain struct, and how it is read back and checked.
 * What a plain message points to lies in the unpacked one, which is kept with it. */
#include "proto/serve_wire.h"

#include "proto/serve.pb-c.h"
#include "runtime/base/log.h"

#include <math.h>
#include <string.h>

enum { LENGTH_BYTES = 4, KIND_BYTES = 1 };

/* Room to pack any kind from. */
typedef union wire {
    ProtobufCMessage base;
    Tessera__ServeSubmit submit;
    Tessera__ServeCancel cancel;
    Tessera__ServeHello hello;
    Tessera__ServeLoading loading;
    Tessera__ServeReady ready;
    Tessera__ServeOutput output;
    Tessera__ServeLoad load;
    Tessera__ServeScores scores;
} wire;

/* protobuf-c only reads a message it packs, but its pointers are not const. */
#define LEND(to, from) memcpy(&(to), &(from), sizeof(to))

static void lend_bytes(const void *bytes, size_t count, ProtobufCBinaryData *ret_data)
{
    memcpy(&ret_data->data, &bytes, sizeof(ret_data->data));
    ret_data->len = count;
}

static void pack_submit(const tsr_serve_message *m, wire *w)
{
    const tsr_serve_submit *s = &m->submit;

    tessera__serve_submit__init(&w->submit);
    w->submit.id = s->id;
    w->submit.seed = s->seed;
    w->submit.cache_salt = s->cache_salt;
    w->submit.n_prompt = (size_t)s->prompt_count;
    LEND(w->submit.prompt, s->prompt);
    w->submit.given = (uint32_t)s->given;
    w->submit.max_tokens = (uint32_t)s->max_tokens;
    w->submit.temperature = s->temperature;
    w->submit.top_p = s->top_p;
    w->submit.top_k = (uint32_t)s->top_k;
    w->submit.n_stop_ids = (size_t)s->stop_id_count;
    LEND(w->submit.stop_ids, s->stop_ids);
    w->submit.ignore_eos = s->ignore_eos;
    w->submit.priority = s->priority;
    w->submit.min_p = s->min_p;
    w->submit.score_prompt = s->score_prompt;
    w->submit.score_top = (uint32_t)s->score_top;
    w->submit.top = (uint32_t)s->top;
    if (s->guide != NULL)
        w->submit.guide = (char *)(uintptr_t)s->guide;
    if (s->rules != NULL)
        lend_bytes(s->rules, tsr_rules_bytes(s->rules), &w->submit.rules);
}

/* True when all are ids: not negative. */
static bool are_ids(const uint32_t *ids, size_t count)
{
    size_t i = 0;
    while (i < count && ids[i] <= INT32_MAX)
        i++;
    return i == count && count <= INT32_MAX;
}

/* What lies in a message is aligned as malloc aligns it. */
static bool rules_wrong(const ProtobufCBinaryData *bytes)
{
    tsr_token_rules rules = {0};

    if (bytes->len > sizeof(rules))
        return true;
    memcpy(&rules, bytes->data, bytes->len);
    return tsr_rules_wrong(&rules, bytes->len, INT32_MAX) != NULL;
}

static const char *read_submit(const void *unpacked, tsr_serve_message *m)
{
    const Tessera__ServeSubmit *s = unpacked;

    if (s->n_prompt == 0 || !are_ids(s->prompt, s->n_prompt))
        return "its prompt is empty or has a negative id";
    if (!are_ids(s->stop_ids, s->n_stop_ids))
        return "it has a negative stop id";
    if (s->given >= s->n_prompt || s->max_tokens > INT32_MAX || s->top_k > INT32_MAX)
        return "a count is out of range";
    if (s->top > TSR_MOST_TOP || s->score_top > TSR_MOST_TOP)
        return "it asks for too many probabilities";
    if (!isfinite(s->temperature) || s->temperature < 0 || !(s->top_p > 0 && s->top_p <= 1) ||
        !(s->min_p >= 0 && s->min_p <= 1))
        return "its temperature, top_p or min_p is out of range";
    if (s->rules.len > 0 && rules_wrong(&s->rules))
        return "its rules are none";
    m->submit = (tsr_serve_submit){
        .id = s->id,
        .seed = s->seed,
        .cache_salt = s->cache_salt,
        .prompt = (const int32_t *)s->prompt,
        .stop_ids = (const int32_t *)s->stop_ids,
        .prompt_count = (int32_t)s->n_prompt,
        .stop_id_count = (int32_t)s->n_stop_ids,
        .given = (int32_t)s->given,
        .max_tokens = (int32_t)s->max_tokens,
        .temperature = s->temperature,
        .top_p = s->top_p,
        .top_k = (int32_t)s->top_k,
        .ignore_eos = s->ignore_eos,
        .priority = s->priority,
        .min_p = s->min_p,
        .score_top = (int32_t)s->score_top,
        .top = (int32_t)s->top,
        .score_prompt = s->score_prompt,
        .guide = s->guide[0] != '\0' ? s->guide : NULL,
        .rules = s->rules.len > 0 ? (const tsr_token_rules *)(const void *)s->rules.data : NULL,
    };
    return NULL;
}

static void pack_cancel(const tsr_serve_message *m, wire *w)
{
    tessera__serve_cancel__init(&w->cancel);
    w->cancel.id = m->cancel;
}

static const char *read_cancel(const void *unpacked, tsr_serve_message *m)
{
    const Tessera__ServeCancel *c = unpacked;
    m->cancel = c->id;
    return NULL;
}

static void pack_hello(const tsr_serve_message *m, wire *w)
{
    tessera__serve_hello__init(&w->hello);
    w->hello.version = m->hello.version;
    LEND(w->hello.program, m->hello.program);
}

static const char *read_hello(const void *unpacked, tsr_serve_message *m)
{
    const Tessera__ServeHello *h = unpacked;
    m->hello = (tsr_serve_hello){.version = h->version, .program = h->program};
    return NULL;
}

static void pack_loading(const tsr_serve_message *m, wire *w)
{
    tessera__serve_loading__init(&w->loading);
    w->loading.bytes = m->loading.bytes;
    w->loading.total = m->loading.total;
}

static const char *read_loading(const void *unpacked, tsr_serve_message *m)
{
    const Tessera__ServeLoading *l = unpacked;
    m->loading = (tsr_serve_loading){.bytes = l->bytes, .total = l->total};
    return NULL;
}

static void pack_ready(const tsr_serve_message *m, wire *w)
{
    tessera__serve_ready__init(&w->ready);
    w->ready.ranks = (uint32_t)m->ready.ranks;
    w->ready.max_model_len = (uint32_t)m->ready.max_model_len;
    w->ready.vocab = (uint32_t)m->ready.vocab;
    w->ready.max_num_seqs = (uint32_t)m->ready.max_num_seqs;
    w->ready.kv_tokens = (uint64_t)m->ready.kv_tokens;
    LEND(w->ready.info, m->ready.info);
}

static const char *read_ready(const void *unpacked, tsr_serve_message *m)
{
    const Tessera__ServeReady *r = unpacked;

    if (r->ranks == 0 || r->ranks > INT32_MAX || r->max_model_len == 0 ||
        r->max_model_len > INT32_MAX || r->vocab > INT32_MAX || r->max_num_seqs > INT32_MAX ||
        r->kv_tokens > INT64_MAX)
        return "a count is out of range";
    m->ready = (tsr_serve_ready){
        .ranks = (int32_t)r->ranks,
        .max_model_len = (int32_t)r->max_model_len,
        .vocab = (int32_t)r->vocab,
        .max_num_seqs = (int32_t)r->max_num_seqs,
        .kv_tokens = (int64_t)r->kv_tokens,
        .info = r->info,
    };
    return NULL;
}

static void pack_output(const tsr_serve_message *m, wire *w)
{
    const tsr_serve_output *o = &m->output;

    tessera__serve_output__init(&w->output);
    w->output.id = o->id;
    w->output.token = o->token;
    w->output.logprob = o->logprob;
    w->output.finish = (uint32_t)o->finish;
    w->output.prompt_tokens = (uint32_t)o->prompt_tokens;
    w->output.output_tokens = (uint32_t)o->output_tokens;
    w->output.cause = (uint32_t)o->cause;
    w->output.cached_tokens = (uint32_t)o->cached_tokens;
    LEND(w->output.refusal, o->refusal);
    w->output.queued_ns = (uint64_t)o->queued_ns;
    w->output.first_ns = (uint64_t)o->first_ns;
    lend_bytes(o->top, (size_t)o->top_count * sizeof(*o->top), &w->output.top);
}

static const char *read_output(const void *unpacked, tsr_serve_message *m)
{
    const Tessera__ServeOutput *o = unpacked;

    if (o->token < -1 || o->finish > INT32_MAX || o->prompt_tokens > INT32_MAX ||
        o->output_tokens > INT32_MAX || o->cause > INT32_MAX || o->cached_tokens > INT32_MAX ||
        o->queued_ns > INT64_MAX || o->first_ns > INT64_MAX)
        return "a count is out of range";
    if (o->top.len % sizeof(tsr_token_logprob) != 0 ||
        o->top.len / sizeof(tsr_token_logprob) > TSR_MOST_TOP)
        return "its probabilities are cut";
    m->output = (tsr_serve_output){
        .id = o->id,
        .token = o->token,
        .logprob = o->logprob,
        .finish = (int32_t)o->finish,
        .prompt_tokens = (int32_t)o->prompt_tokens,
        .output_tokens = (int32_t)o->output_tokens,
        .cause = (int32_t)o->cause,
        .cached_tokens = (int32_t)o->cached_tokens,
        .refusal = o->refusal,
        .queued_ns = (int64_t)o->queued_ns,
        .first_ns = (int64_t)o->first_ns,
        .top = (const tsr_token_logprob *)(const void *)o->top.data,
        .top_count = (int32_t)(o->top.len / sizeof(tsr_token_logprob)),
    };
    return NULL;
}

static void pack_load(const tsr_serve_message *m, wire *w)
{
    const tsr_serve_load *l = &m->load;

    tessera__serve_load__init(&w->load);
    w->load.running = (uint32_t)l->running;
    w->load.waiting = (uint32_t)l->waiting;
    w->load.kv_blocks_used = l->kv_blocks_used;
    w->load.kv_blocks = l->kv_blocks;
    w->load.steps = l->steps;
    w->load.prompt_tokens = l->prompt_tokens;
    w->load.output_tokens = l->output_tokens;
    w->load.preemptions = l->preemptions;
    w->load.prefix_queries = l->prefix_queries;
    w->load.prefix_hits = l->prefix_hits;
    w->load.layers = (uint32_t)l->layers;
    w->load.n_expert_tokens = l->expert_token_count;
    LEND(w->load.expert_tokens, l->expert_tokens);
    w->load.expert_steps = l->expert_steps;
}

static const char *read_load(const void *unpacked, tsr_serve_message *m)
{
    const Tessera__ServeLoad *l = unpacked;

    if (l->running > INT32_MAX || l->waiting > INT32_MAX || l->layers > INT32_MAX ||
        (l->layers == 0 ? l->n_expert_tokens : l->n_expert_tokens % l->layers) != 0)
        return "a count is out of range";
    m->load = (tsr_serve_load){
        .running = (int32_t)l->running,
        .waiting = (int32_t)l->waiting,
        .kv_blocks_used = l->kv_blocks_used,
        .kv_blocks = l->kv_blocks,
        .steps = l->steps,
        .prompt_tokens = l->prompt_tokens,
        .output_tokens = l->output_tokens,
        .preemptions = l->preemptions,
        .prefix_queries = l->prefix_queries,
        .prefix_hits = l->prefix_hits,
        .layers = (int32_t)l->layers,
        .expert_token_count = l->n_expert_tokens,
        .expert_tokens = l->expert_tokens,
        .expert_steps = l->expert_steps,
    };
    return NULL;
}

static void pack_scores(const tsr_serve_message *m, wire *w)
{
    const tsr_serve_scores *s = &m->scores;
    const size_t count = (size_t)s->count;

    tessera__serve_scores__init(&w->scores);
    w->scores.id = s->id;
    w->scores.first_position = (uint32_t)s->first_position;
    w->scores.top_count = (uint32_t)s->top_count;
    lend_bytes(s->token, count * sizeof(*s->token), &w->scores.token);
    lend_bytes(s->top, count * (size_t)s->top_count * sizeof(*s->top), &w->scores.top);
}

static const char *read_scores(const void *unpacked, tsr_serve_message *m)
{
    const Tessera__ServeScores *s = unpacked;
    const size_t count = s->token.len / sizeof(tsr_token_logprob);

    if (s->first_position > INT32_MAX || count > INT32_MAX || s->top_count > TSR_MOST_TOP)
        return "a count is out of range";
    if (s->token.len != count * sizeof(tsr_token_logprob) ||
        s->top.len != count * s->top_count * sizeof(tsr_token_logprob))
        return "its probabilities are cut";
    m->scores = (tsr_serve_scores){
        .id = s->id,
        .token = (const tsr_token_logprob *)(const void *)s->token.data,
        .top = (const tsr_token_logprob *)(const void *)s->top.data,
        .first_position = (int32_t)s->first_position,
        .count = (int32_t)count,
        .top_count = (int32_t)s->top_count,
    };
    return NULL;
}

typedef struct kind_row {
    const ProtobufCMessageDescriptor *descriptor; /* NULL: the kind says it all */
    void (*pack)(const tsr_serve_message *message, wire *wire);
    /* What is wrong with it, as the end of a line; NULL when nothing is. */
    const char *(*read)(const void *unpacked, tsr_serve_message *message);
} kind_row;

static const kind_row kinds[] = {
    [TSR_SERVE_SUBMIT] = {&tessera__serve_submit__descriptor, pack_submit, read_submit},
    [TSR_SERVE_CANCEL] = {&tessera__serve_cancel__descriptor, pack_cancel, read_cancel},
    [TSR_SERVE_END] = {NULL, NULL, NULL},
    [TSR_SERVE_DRAIN] = {NULL, NULL, NULL},
    [TSR_SERVE_HELLO] = {&tessera__serve_hello__descriptor, pack_hello, read_hello},
    [TSR_SERVE_LOADING] = {&tessera__serve_loading__descriptor, pack_loading, read_loading},
    [TSR_SERVE_READY] = {&tessera__serve_ready__descriptor, pack_ready, read_ready},
    [TSR_SERVE_OUTPUT] = {&tessera__serve_output__descriptor, pack_output, read_output},
    [TSR_SERVE_LOAD] = {&tessera__serve_load__descriptor, pack_load, read_load},
    [TSR_SERVE_SCORES] = {&tessera__serve_scores__descriptor, pack_scores, read_scores},
};
enum { KINDS = sizeof(kinds) / sizeof(kinds[0]) };

tsr_status tsr_serve_message_add(const tsr_serve_message *message, tsr_text *out)
{
    const kind_row *row = &kinds[message->kind];
    const unsigned char kind = (unsigned char)message->kind;
    size_t packed = 0;
    wire w;

    if (row->descriptor != NULL) {
        row->pack(message, &w);
        packed = protobuf_c_message_get_packed_size(&w.base);
    }
    if (packed > TSR_SERVE_MOST_BYTES - KIND_BYTES)
        return TSR_ERR_CAPACITY;

    const uint32_t length = (uint32_t)packed + KIND_BYTES;
    const tsr_status st = tsr_text_reserve(out, LENGTH_BYTES + (size_t)length);
    if (st != TSR_OK)
        return st;
    unsigned char *into = (unsigned char *)out->bytes + out->count;
    memcpy(into, &length, LENGTH_BYTES);
    into[LENGTH_BYTES] = kind;
    if (packed > 0)
        (void)protobuf_c_message_pack(&w.base, into + LENGTH_BYTES + KIND_BYTES);
    out->count += LENGTH_BYTES + (size_t)length;
    out->bytes[out->count] = '\0';
    return TSR_OK;
}

static tsr_status malformed(const char *why)
{
    tsr_log(TSR_LOG_ERROR,
            "a message between gateway and engine cannot be read: %s; both ends must be the same "
            "program",
            why);
    return TSR_ERR_MISMATCH;
}

static tsr_status unpack(const kind_row *row, const unsigned char *bytes, size_t count,
                         tsr_serve_arrived *arrived)
{
    if (row->descriptor == NULL)
        return count == 0 ? TSR_OK : malformed("bytes where there should be none");

    ProtobufCMessage *message = protobuf_c_message_unpack(row->descriptor, NULL, count, bytes);
    if (message == NULL)
        return malformed("its bytes are not a message");
    const char *wrong = row->read(message, &arrived->message);
    if (wrong != NULL) {
        protobuf_c_message_free_unpacked(message, NULL);
        return malformed(wrong);
    }
    arrived->memory = message;
    return TSR_OK;
}

tsr_status tsr_serve_message_read(const void *bytes, size_t count, tsr_serve_arrived *ret_arrived,
                                  size_t *ret_used)
{
    const unsigned char *at = bytes;
    tsr_serve_arrived arrived = {0};
    uint32_t length = 0;

    if (count >= LENGTH_BYTES) {
        memcpy(&length, at, LENGTH_BYTES);
        if (length < KIND_BYTES || length > TSR_SERVE_MOST_BYTES)
            return malformed("its length is out of range");
    }
    if (count < LENGTH_BYTES || count - LENGTH_BYTES < length) {
        *ret_used = 0;
        return TSR_OK;
    }

    const unsigned char kind = at[LENGTH_BYTES];
    if (kind == 0 || kind >= KINDS)
        return malformed("its kind is not known");
    arrived.message.kind = (tsr_serve_kind)kind;
    const tsr_status st =
        unpack(&kinds[kind], at + LENGTH_BYTES + KIND_BYTES, length - KIND_BYTES, &arrived);
    if (st != TSR_OK)
        return st;
    *ret_arrived = arrived;
    *ret_used = LENGTH_BYTES + (size_t)length;
    return TSR_OK;
}

void tsr_serve_arrived_close(tsr_serve_arrived *arrived)
{
    if (arrived->memory != NULL)
        protobuf_c_message_free_unpacked(arrived->memory, NULL);
    *arrived = (tsr_serve_arrived){0};
}
