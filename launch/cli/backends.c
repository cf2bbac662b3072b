/*
 * The one table of backends. Planning finds its target here, a job its device; a new backend is a
 * row in front of those it is better than.
 */
#include "launch/cli/backends.h"

#include "comm/exchange.h"
#include "runtime/base/log.h"
#include "runtime/plan/plan_build.h"

#include <ctype.h>
#include <string.h>

enum { NAME_BYTES = 128 };

static tsr_cpu_isa isa_of(const char *name)
{
    if (strcmp(name, "plain") == 0)
        return TSR_CPU_PLAIN;
    if (strcmp(name, "avx2") == 0)
        return TSR_CPU_AVX2;
    return strcmp(name, "avx512") == 0 ? TSR_CPU_AVX512 : TSR_CPU_AUTO;
}

static tsr_status open_cpu(const tsr_config *config, int32_t threads, int32_t card,
                           tsr_device **ret_device)
{
    (void)card;
    return tsr_device_open_cpu(threads, isa_of(config->cpu_isa), ret_device);
}

static bool cpu_is_here(void)
{
    return true;
}

static const char *cpu_target(void)
{
    return "cpu";
}

static bool begins(const char *text, const char *beginning)
{
    size_t i = 0;

    while (beginning[i] != '\0' && tolower((unsigned char)text[i]) == beginning[i])
        i++;
    return beginning[i] == '\0';
}

/* True when a word of the card's name is the target's: "NVIDIA H200" is h200, "NVIDIA GH200" not. */
static bool names(const char *card, const char *target)
{
    for (const char *word = strchr(card, ' '); word != NULL; word = strchr(word + 1, ' ')) {
        if (begins(word + 1, target))
            return true;
    }
    return false;
}

static const char *target_of_card(const char *card)
{
    for (size_t i = 0; tsr_target_choice(i) != NULL; i++) {
        if (names(card, tsr_target_choice(i)))
            return tsr_target_choice(i);
    }
    return NULL;
}

static const char *cuda_target(void)
{
    char card[NAME_BYTES];

    if (tsr_cuda_card_name(0, sizeof(card), card) != TSR_OK)
        return NULL;
    const char *target = target_of_card(card);
    if (target == NULL)
        tsr_log(TSR_LOG_ERROR, "no target is called after the GPU here, '%s'; name one (--target)",
                card);
    return target;
}

static bool cuda_is_here(void)
{
    char card[NAME_BYTES];

    return tsr_cuda_cards() > 0 && tsr_cuda_card_name(0, sizeof(card), card) == TSR_OK &&
           target_of_card(card) != NULL;
}

static tsr_status open_cuda(const tsr_config *config, int32_t threads, int32_t card,
                            tsr_device **ret_device)
{
    (void)threads;
    return tsr_device_open_cuda(card, config->ranks_per_gpu == 1, ret_device);
}

/* Best first. */
static const tsr_backend backends[] = {
    {.name = "cuda", .here = cuda_is_here, .target = cuda_target, .open = open_cuda},
    {.name = "cpu", .host = true, .here = cpu_is_here, .target = cpu_target, .open = open_cpu},
};
enum { BACKENDS = sizeof(backends) / sizeof(backends[0]) };

static bool serves(const tsr_backend *backend, const tsr_backend_ranks *ranks)
{
    const bool cards = ranks->on_card > 0 && ranks->on_card <= ranks->allowed &&
                       (ranks->ranks == 1 || tsr_exchange_reaches_cards());
    return (backend->host || cards) && backend->here();
}

const tsr_backend *tsr_backend_find(const char *name, const tsr_backend_ranks *ranks)
{
    const bool any = strcmp(name, "auto") == 0;

    for (size_t i = 0; i < BACKENDS; i++) {
        if (any ? serves(&backends[i], ranks) : strcmp(name, backends[i].name) == 0)
            return &backends[i];
    }
    return NULL;
}

const tsr_backend *tsr_backend_of(const char *name)
{
    const tsr_backend_ranks one = {.ranks = 1, .on_card = 1, .allowed = 1};

    return tsr_backend_find(name, &one);
}

/* What is wrong with the GPU of a single rank its device says in better words. */
tsr_status tsr_backend_check(const tsr_backend *backend, const tsr_backend_ranks *ranks)
{
    if (backend->host && ranks->on_card > ranks->allowed)
        tsr_log(TSR_LOG_WARN,
                "%s: all ranks compute on CPUs; start as many as there are GPUs, or allow it with "
                "--ranks-per-gpu %d",
                ranks->crowd, (int)ranks->on_card);
    if (backend->host || ranks->ranks == 1)
        return TSR_OK;
    if (ranks->on_card == 0) {
        tsr_log(TSR_LOG_ERROR,
                "--backend %s: of %d ranks not every one sees a GPU; start fewer, or use --backend "
                "cpu",
                backend->name, (int)ranks->ranks);
        return TSR_ERR_DEVICE;
    }
    if (ranks->on_card > ranks->allowed) {
        tsr_log(TSR_LOG_ERROR,
                "--backend %s: %s; start as many ranks as there are GPUs, each seeing its own or "
                "all of its host's (CUDA_VISIBLE_DEVICES), or allow it with --ranks-per-gpu %d",
                backend->name, ranks->crowd, (int)ranks->on_card);
        return TSR_ERR_DEVICE;
    }
    return TSR_OK;
}

const char *tsr_backend_choice(size_t index)
{
    if (index == 0)
        return "auto";
    return index <= BACKENDS ? backends[index - 1].name : NULL;
}
