/*
 * The table of options. Names that other tables hold (targets, backends) are asked for there.
 */
#include "launch/cli/option_table.h"

#include "launch/cli/backends.h"
#include "launch/cli/config.h"
#include "runtime/plan/plan_build.h"
#include "runtime/synthetic/synthetic.h"

#include <stdio.h>
#include <string.h>

#define AT(field) offsetof(tsr_config, field)

enum {
    INSPECT = TSR_COMMAND_INSPECT,
    PLAN = TSR_COMMAND_PLAN,
    RUN = TSR_COMMAND_RUN,
    SCORE = TSR_COMMAND_SCORE,
    BENCH = TSR_COMMAND_BENCH,
    DOCTOR = TSR_COMMAND_DOCTOR,
    CHAT = TSR_COMMAND_CHAT,
    SERVED = TSR_COMMAND_SERVE | CHAT, /* a chat may start a server */
    SERVE = TSR_COMMAND_SERVE,
    REQUESTS = RUN | SCORE | SERVED,
    JOB = RUN | SCORE | BENCH | SERVED,
    SIZED = PLAN | RUN | SCORE | BENCH | SERVED,
    ALL = INSPECT | PLAN | RUN | SCORE | BENCH | DOCTOR | SERVED,
};

#define MILLION     1048576.0
#define HUGE_NUMBER 9007199254740992.0

const tsr_option_row tsr_option_rows[] = {
    {"prompt", RUN, TSR_OPTION_TEXT, AT(prompt), 0, 0, "TEXT", NULL, NULL, "continue this text"},
    {"prompt", CHAT, TSR_OPTION_TEXT, AT(prompt), 0, 0, "TEXT", NULL, NULL,
     "ask this, print the answer and end"},
    {"chat", RUN, TSR_OPTION_TEXT, AT(chat), 0, 0, "TEXT", NULL, NULL,
     "answer this user message, through the model's chat template"},
    {"system", RUN, TSR_OPTION_TEXT, AT(system), 0, 0, "TEXT", NULL, NULL,
     "system message in front of --chat"},
    {"system", CHAT, TSR_OPTION_TEXT, AT(system), 0, 0, "TEXT", NULL, NULL, "system message"},
    {"input", RUN, TSR_OPTION_TEXT, AT(input), 0, 0, "FILE", NULL, NULL,
     "OpenAI batch lines: custom_id, body; url or the body decides chat or completion"},
    {"output", RUN, TSR_OPTION_TEXT, AT(output), 0, 0, "FILE", NULL, NULL,
     "results of --input in order of completion: custom_id, response.body or error"},
    {"resume", RUN, TSR_OPTION_FLAG, AT(resume), 0, 0, NULL, NULL, NULL,
     "keep the answers that --output has, and answer the other lines"},
    {"report", RUN, TSR_OPTION_TEXT, AT(report), 0, 0, "FILE", NULL, NULL,
     "write a page about the run: experts' load, time by stage, waits, precision"},
    {"default-chat-template-kwargs", RUN | SERVED, TSR_OPTION_TEXT, AT(template_kwargs), 0, 0,
     "JSON", NULL, NULL, "variables for the chat template, such as '{\"enable_thinking\": false}'"},
    {"generation-config", RUN | SERVED, TSR_OPTION_CHOICE, AT(generation_config), 0, 0, "FROM",
     "auto", "auto|none",
     "sampling defaults: the checkpoint's generation_config.json, or OpenAI's API alone"},
    {"max-tokens", RUN | CHAT, TSR_OPTION_INTEGER, AT(max_tokens), 1, HUGE_NUMBER, "N", NULL, NULL,
     "tokens to generate at most; the rest of the context when not given"},
    {"temperature", RUN | CHAT, TSR_OPTION_NUMBER, AT(temperature), 0, 100, "X", NULL, NULL,
     "0 is greedy; the checkpoint's generation_config.json when not given, else 1"},
    {"top-p", RUN | CHAT, TSR_OPTION_NUMBER, AT(top_p), 0, 1, "X", NULL, NULL,
     "sample from the smallest set of tokens with this probability"},
    {"top-k", RUN | CHAT, TSR_OPTION_INTEGER, AT(top_k), 0, MILLION, "N", NULL, NULL,
     "sample from the N likeliest tokens; 0 for all"},
    {"seed", RUN | CHAT, TSR_OPTION_INTEGER, AT(seed), 0, HUGE_NUMBER, "N", NULL, NULL,
     "the same seed gives the same tokens, on any number of ranks"},
    {"stop", RUN | CHAT, TSR_OPTION_LIST, AT(stop), 0, 0, "TEXT", NULL, NULL,
     "end before this text; may be repeated"},
    {"ignore-eos", RUN | CHAT, TSR_OPTION_FLAG, AT(ignore_eos), 0, 0, NULL, NULL, NULL,
     "generate on past the end-of-sequence tokens"},
    {"tokens", SCORE, TSR_OPTION_TEXT, AT(tokens), 0, 0, "FILE", NULL, NULL,
     "JSON array of arrays of ids, or safetensors with int32 tokens.I"},
    {"out", SCORE, TSR_OPTION_TEXT, AT(out), 0, 0, "FILE", NULL, NULL,
     "safetensors with float32 logits.I [T, vocab_size]"},
    {"shape", BENCH, TSR_OPTION_CHOICE, AT(shape), 0, 0, "NAME", NULL, NULL,
     "instead of DIR: a checkpoint of this shape with random weights, made and removed again"},
    {"precision", BENCH, TSR_OPTION_TEXT, AT(precision), 0, 0, "MAP", NULL, NULL,
     "of --shape: experts=nvfp4,fp8,attention=fp8 ...; several formats of a module take turns by "
     "layer; bf16 where nothing is said"},
    {"layers", BENCH, TSR_OPTION_INTEGER, AT(layers), 1, 512, "N", NULL, NULL,
     "of --shape: the first N layers; all when not given"},
    {"vocab", BENCH, TSR_OPTION_INTEGER, AT(vocab), 1, MILLION, "N", NULL, NULL,
     "of --shape: so many ids; the shape's when not given"},
    {"scratch", BENCH, TSR_OPTION_TEXT, AT(scratch), 0, 0, "DIR", "/tmp", NULL,
     "where the checkpoint of --shape is made; every rank reads it there"},
    {"batch", BENCH, TSR_OPTION_TEXT, AT(batch), 0, 0, "N,N...", "1,8,32,128", NULL,
     "sequences that decode at once, a row each; none for no row"},
    {"context", BENCH, TSR_OPTION_INTEGER, AT(context), 1, MILLION, "N", "1024", NULL,
     "positions of each sequence that decodes"},
    {"prefill", BENCH, TSR_OPTION_TEXT, AT(prefill), 0, 0, "N|CxN,...", "4096,8x2048", NULL,
     "prompts computed in one step, a row each: one of N ids or C of them; none for no row"},
    {"steps", BENCH, TSR_OPTION_INTEGER, AT(steps), 1, 4096, "N", "32", NULL,
     "steps that are timed of each --batch; the median counts"},
    {"url", BENCH, TSR_OPTION_TEXT, AT(url), 0, 0, "URL", "http://127.0.0.1:8000", NULL,
     "bench serve: the server to put load on"},
    {"url", CHAT, TSR_OPTION_TEXT, AT(url), 0, 0, "URL", NULL, NULL,
     "the server to talk to, any that OpenAI's clients can; http://127.0.0.1:8000 without DIR"},
    {"model", CHAT, TSR_OPTION_TEXT, AT(model), 0, 0, "NAME", NULL, NULL,
     "what requests call the model; the first that the server names when not given"},
    {"clients", BENCH, TSR_OPTION_INTEGER, AT(clients), 1, 4096, "N", "16", NULL,
     "bench serve: clients that ask at once, each for one answer after the other"},
    {"requests", BENCH, TSR_OPTION_INTEGER, AT(requests), 1, MILLION, "N", "64", NULL,
     "bench serve: requests of all clients"},
    {"input-tokens", BENCH, TSR_OPTION_INTEGER, AT(input_tokens), 1, MILLION, "N", "512", NULL,
     "bench serve: random ids of each prompt, below --vocab or 1000"},
    {"output-tokens", BENCH, TSR_OPTION_INTEGER, AT(output_tokens), 1, MILLION, "N", "256", NULL,
     "bench serve: tokens of each answer"},
    {"ranks", PLAN, TSR_OPTION_INTEGER, AT(ranks), 1, 1024, "N", "1", NULL,
     "number of ranks to plan for"},
    {"target", PLAN, TSR_OPTION_TEXT, AT(target), 0, 0, "TARGET|BYTES", NULL, NULL,
     "device of each rank, or just its memory; what --backend computes on when not given"},
    {"host", SERVE, TSR_OPTION_TEXT, AT(host), 0, 0, "ADDRESS", "127.0.0.1", NULL,
     "address to listen at; 0.0.0.0 or :: for all of this machine"},
    {"port", SERVE, TSR_OPTION_INTEGER, AT(port), 0, 65535, "N", "8000", NULL,
     "port to listen at; 0 for any that is free, which is logged"},
    {"served-model-name", SERVE | BENCH, TSR_OPTION_LIST, AT(served_model_name), 0, 0, "NAME", NULL,
     NULL,
     "what requests call the model; may be repeated, answers carry the first; DIR's own name when "
     "not given"},
    {"api-key", SERVE | BENCH, TSR_OPTION_LIST, AT(api_key), 0, 0, "KEY", NULL, NULL,
     "refuse whoever does not send this key; may be repeated; all paths but /live, /health and "
     "/metrics"},
    {"api-key", CHAT, TSR_OPTION_LIST, AT(api_key), 0, 0, "KEY", NULL, NULL, "key of --url"},
    {"ssl-certfile", SERVE, TSR_OPTION_TEXT, AT(ssl_certfile), 0, 0, "FILE", NULL, NULL,
     "serve HTTPS with this chain of certificates (PEM); goes with --ssl-keyfile"},
    {"ssl-keyfile", SERVE, TSR_OPTION_TEXT, AT(ssl_keyfile), 0, 0, "FILE", NULL, NULL,
     "private key of --ssl-certfile (PEM)"},
    {"cors-origin", SERVE, TSR_OPTION_TEXT, AT(cors_origin), 0, 0, "ORIGIN", NULL, NULL,
     "let pages of this origin call the server from a browser; * for all"},
    {"max-queue", SERVE, TSR_OPTION_INTEGER, AT(max_queue), 0, MILLION, "N", "0", NULL,
     "requests that wait while others run; more are refused with 429; 0 is four times those that "
     "run, at least 256"},
    {"client-timeout", SERVE | BENCH, TSR_OPTION_INTEGER, AT(client_timeout), 1, 86400, "SECONDS",
     "30", NULL, "longest wait for a client that sends a request or is sent an answer"},
    {"client-timeout", CHAT, TSR_OPTION_INTEGER, AT(client_timeout), 1, 86400, "SECONDS", "600",
     NULL, "longest silence of the server"},
    {"sse-ping-interval", SERVE, TSR_OPTION_INTEGER, AT(sse_ping_interval), 0, 86400, "SECONDS",
     "15", NULL, "send a comment in a stream that was silent for so long; 0 for none"},
    {"shutdown-timeout", SERVE, TSR_OPTION_INTEGER, AT(shutdown_timeout), 0, 86400, "SECONDS", "30",
     NULL, "longest wait for running requests when the server is asked to end"},
    {"metrics-compat", SERVE, TSR_OPTION_CHOICE, AT(metrics_compat), 0, 0, "NAMES", "vllm",
     "vllm|none", "names in /metrics beside tessera's own"},
    {"reasoning-field", SERVE, TSR_OPTION_CHOICE, AT(reasoning_field), 0, 0, "NAMES",
     "reasoning_content", "reasoning_content|reasoning|both",
     "what answers call the model's thoughts; vLLM's newer clients read reasoning"},
    {"strict-api", SERVE, TSR_OPTION_FLAG, AT(strict_api), 0, 0, NULL, NULL, NULL,
     "refuse requests with fields that are not known"},
    {"ranks", SERVED, TSR_OPTION_INTEGER, AT(ranks), 1, 1024, "N", NULL, NULL,
     "start this many processes with mpirun; one without mpirun when not given"},
    {"hostfile", SERVED, TSR_OPTION_TEXT, AT(hostfile), 0, 0, "FILE", NULL, NULL,
     "hosts of --ranks, as mpirun reads them"},
    {"restarts", SERVED, TSR_OPTION_INTEGER, AT(restarts), 0, 1000, "N", "5", NULL,
     "start ranks that died again, this often within --restart-minutes"},
    {"restart-minutes", SERVED, TSR_OPTION_INTEGER, AT(restart_minutes), 1, 1440, "MINUTES", "10",
     NULL, "the time that --restarts counts in"},
    {"engine-socket", SERVED, TSR_OPTION_TEXT, AT(engine_socket), 0, 0, "NAME", NULL, NULL,
     "set by the server for the ranks it starts: where it waits for them"},
    {"json", INSPECT | PLAN | BENCH | DOCTOR, TSR_OPTION_FLAG, AT(json), 0, 0, NULL, NULL, NULL,
     "print one JSON object instead of text"},
    {"html", INSPECT, TSR_OPTION_TEXT, AT(html), 0, 0, "FILE", NULL, NULL,
     "write the same as a page that needs nothing but a browser"},
    {"backend", ALL & ~DOCTOR, TSR_OPTION_CHOICE, AT(backend), 0, 0, "NAME", "auto", NULL,
     "what computes: auto takes the best this build has"},
    {"activations", SIZED, TSR_OPTION_CHOICE, AT(activations), 0, 0, "MODE", "auto",
     "auto|declared|weight-only",
     "quantize activations as the target can (and say so), as declared or not at all"},
    {"activations-of", SIZED, TSR_OPTION_CHOICE, AT(activations_of), 0, 0, "TARGET", NULL, NULL,
     "compute the activations that target would compute"},
    {"kv-cache-dtype", SIZED, TSR_OPTION_CHOICE, AT(kv_cache_dtype), 0, 0, "TYPE", "auto",
     "auto|f32|bf16|fp8", "keys and values: as the checkpoint declares, or this type"},
    {"max-model-len", SIZED, TSR_OPTION_INTEGER, AT(max_model_len), 1, 16.0 * MILLION, "N", NULL,
     NULL, "positions of one sequence; the model's when not given, as far as memory goes"},
    {"max-num-seqs", SIZED, TSR_OPTION_INTEGER, AT(max_num_seqs), 1, 65536, "N", NULL, NULL,
     "sequences of one rank at a time"},
    {"max-num-batched-tokens", SIZED, TSR_OPTION_INTEGER, AT(max_batched_tokens), 1, MILLION, "N",
     NULL, NULL, "tokens of one rank in one step"},
    {"exchange-tokens", SIZED, TSR_OPTION_INTEGER, AT(exchange_tokens), 1, MILLION, "N", NULL, NULL,
     "tokens a rank sends in one exchange; larger steps take several"},
    {"block-size", SIZED, TSR_OPTION_INTEGER, AT(block_size), 1, 4096, "N", NULL, NULL,
     "positions of one block of the KV cache"},
    {"memory", JOB, TSR_OPTION_SIZE, AT(memory), 1, HUGE_NUMBER, "BYTES", NULL, NULL,
     "memory of one rank; its share of this machine's when not given"},
    {"local-ranks", JOB | DOCTOR, TSR_OPTION_INTEGER, AT(local_ranks), 1, 1024, "N", NULL, NULL,
     "run N ranks as threads of this process instead of under mpirun"},
    {"ranks-per-gpu", JOB | DOCTOR, TSR_OPTION_INTEGER, AT(ranks_per_gpu), 1, 64, "N", "1", NULL,
     "let N ranks share a GPU, to try many ranks on few; needs NCCL 2.30"},
    {"threads", SIZED, TSR_OPTION_INTEGER, AT(threads), 1, 1024, "N", NULL, NULL,
     "threads of each rank; this machine's cores shared among its ranks when not given"},
    {"cpu-isa", JOB, TSR_OPTION_CHOICE, AT(cpu_isa), 0, 0, "NAME", "auto", "auto|plain|avx2|avx512",
     "instruction set; all give the same bits"},
    {"spread", JOB, TSR_OPTION_CHOICE, AT(spread), 0, 0, "HOW", "least-loaded",
     "least-loaded|round-robin|first",
     "how requests find their rank; the bits do not depend on it"},
    {"enable-prefix-caching", RUN | SERVED, TSR_OPTION_FLAG, AT(prefix_caching), 0, 0, NULL, NULL,
     NULL,
     "prompts share keys and values of what they begin with: the default of serve, and of run on "
     "GPUs; the bits do not depend on it"},
    {"no-enable-prefix-caching", RUN | SERVED, TSR_OPTION_FLAG, AT(no_prefix_caching), 0, 0, NULL,
     NULL, NULL, "every prompt is computed whole"},
    {"prefill-chunk", REQUESTS, TSR_OPTION_INTEGER, AT(prefill_chunk), 1, MILLION, "N", NULL, NULL,
     "prompt tokens of one sequence in one step; all that fit when not given"},
    {"expect-world-size", JOB | DOCTOR, TSR_OPTION_INTEGER, AT(expect_world_size), 1, 65536, "N",
     NULL, NULL, "refuse a job of another number of ranks; what the launcher says when not given"},
    {"init-timeout", JOB | DOCTOR, TSR_OPTION_INTEGER, AT(init_timeout), 1, 86400, "SECONDS", "300",
     NULL, "longest wait for another rank, or for a file, until all weights are there"},
    {"step-timeout", JOB, TSR_OPTION_INTEGER, AT(step_timeout), 1, 86400, "SECONDS", "10", NULL,
     "from then on; when a rank hangs, the job is gone by then"},
    {"log-level", ALL & ~CHAT, TSR_OPTION_CHOICE, AT(log_level), 0, 0, "LEVEL", "info",
     "error|warn|info|debug", "what is written to stderr"},
    {"log-level", CHAT, TSR_OPTION_CHOICE, AT(log_level), 0, 0, "LEVEL", "warn",
     "error|warn|info|debug", "what is written to stderr beside the chat"},
    {"help", ALL, TSR_OPTION_FLAG, AT(help), 0, 0, NULL, NULL, NULL, "this text"},
};

const size_t tsr_option_count = sizeof(tsr_option_rows) / sizeof(tsr_option_rows[0]);

/* Options whose choices are the names of another table. */
static const struct {
    const char *option;
    const char *(*name_at)(size_t index); /* NULL behind the last */
} named_elsewhere[] = {
    {"target", tsr_target_choice},
    {"activations-of", tsr_target_choice},
    {"backend", tsr_backend_choice},
    {"shape", tsr_synthetic_shape_name},
};

static void list_names(const char *(*name_at)(size_t), char text[TSR_CHOICES_BYTES])
{
    size_t used = 0;

    for (size_t i = 0; name_at(i) != NULL && used < TSR_CHOICES_BYTES; i++)
        used += (size_t)snprintf(text + used, TSR_CHOICES_BYTES - used, i > 0 ? "|%s" : "%s",
                                 name_at(i));
}

const char *tsr_option_choices(const char *name, char text[TSR_CHOICES_BYTES])
{
    text[0] = '\0';
    for (size_t i = 0; i < tsr_option_count; i++) {
        const tsr_option_row *row = &tsr_option_rows[i];
        if (row->choices != NULL && strcmp(name, row->name) == 0)
            (void)snprintf(text, TSR_CHOICES_BYTES, "%s", row->choices);
    }
    for (size_t i = 0; i < sizeof(named_elsewhere) / sizeof(named_elsewhere[0]); i++) {
        if (strcmp(name, named_elsewhere[i].option) == 0)
            list_names(named_elsewhere[i].name_at, text);
    }
    return text;
}
