/* Words between commas: one with "=" begins a module, the others are further formats of it. */
#include "runtime/synthetic/precision_words.h"

#include "runtime/base/log.h"
#include "runtime/synthetic/synthetic.h"

#include <string.h>

static const char *const modules[TSR_SYNTHETIC_MODULES] = {
    [TSR_SYNTHETIC_EXPERTS] = "experts", [TSR_SYNTHETIC_ATTENTION] = "attention",
    [TSR_SYNTHETIC_SHARED] = "shared",   [TSR_SYNTHETIC_DENSE] = "dense",
    [TSR_SYNTHETIC_HEAD] = "head",
};

static const struct {
    const char *name;
    tsr_algo algo;
} formats[] = {
    {"bf16", TSR_ALGO_NONE},
    {"fp8", TSR_ALGO_FP8},
    {"fp8-channel", TSR_ALGO_FP8_PER_CHANNEL_PER_TOKEN},
    {"fp8-block", TSR_ALGO_FP8_BLOCK_SCALES},
    {"nvfp4", TSR_ALGO_NVFP4},
    {"w4a16-nvfp4", TSR_ALGO_W4A16_NVFP4},
};
enum { FORMATS = sizeof(formats) / sizeof(formats[0]) };

const char *tsr_synthetic_module_name(size_t index)
{
    return index < TSR_SYNTHETIC_MODULES ? modules[index] : NULL;
}

const char *tsr_synthetic_format_name(size_t index)
{
    return index < FORMATS ? formats[index].name : NULL;
}

static bool is_word(const char *name, const char *text, size_t length)
{
    return strlen(name) == length && strncmp(name, text, length) == 0;
}

static size_t find_module(const char *text, size_t length)
{
    size_t m = 0;
    while (m < TSR_SYNTHETIC_MODULES && !is_word(modules[m], text, length))
        m++;
    return m;
}

static tsr_status add_format(const char *text, size_t length, size_t module,
                             tsr_synthetic_precision *precision)
{
    size_t f = 0;
    while (f < FORMATS && !is_word(formats[f].name, text, length))
        f++;
    if (f == FORMATS) {
        tsr_log(TSR_LOG_ERROR,
                "--precision %s=%.*s: expected one of bf16, fp8, fp8-channel, fp8-block, nvfp4, "
                "w4a16-nvfp4",
                modules[module], (int)length, text);
        return TSR_ERR_ARG;
    }
    if (precision->count[module] == TSR_SYNTHETIC_MOST_FORMATS) {
        tsr_log(TSR_LOG_ERROR, "--precision %s: at most %d formats", modules[module],
                TSR_SYNTHETIC_MOST_FORMATS);
        return TSR_ERR_ARG;
    }
    precision->algo[module][precision->count[module]++] = formats[f].algo;
    return TSR_OK;
}

tsr_status tsr_synthetic_precision_read(const char *text, tsr_synthetic_precision *ret_precision)
{
    tsr_synthetic_precision precision = {0};
    size_t module = TSR_SYNTHETIC_MODULES;
    tsr_status st = TSR_OK;

    for (const char *at = text != NULL ? text : ""; st == TSR_OK && *at != '\0';) {
        const size_t whole = strcspn(at, ",");
        const size_t before = strcspn(at, "=,");
        const char *word = at;
        size_t length = whole;
        if (before < whole) {
            module = find_module(at, before);
            word = at + before + 1;
            length = whole - before - 1;
        }
        if (module == TSR_SYNTHETIC_MODULES) {
            tsr_log(TSR_LOG_ERROR,
                    "--precision %.*s: expected MODULE=FORMAT[,FORMAT] of the modules experts, "
                    "attention, shared, dense, head",
                    (int)whole, at);
            return TSR_ERR_ARG;
        }
        st = add_format(word, length, module, &precision);
        at += whole + (at[whole] == ',');
    }
    if (st == TSR_OK)
        *ret_precision = precision;
    return st;
}

tsr_synthetic_module tsr_synthetic_module_of(tsr_role role)
{
    if (role == TSR_ROLE_HEAD)
        return TSR_SYNTHETIC_HEAD;
    if (role >= TSR_ROLE_Q && role <= TSR_ROLE_O)
        return TSR_SYNTHETIC_ATTENTION;
    if (role >= TSR_ROLE_GATE && role <= TSR_ROLE_DOWN)
        return TSR_SYNTHETIC_DENSE;
    if (role >= TSR_ROLE_SHARED_GATE && role <= TSR_ROLE_SHARED_DOWN)
        return TSR_SYNTHETIC_SHARED;
    if (role >= TSR_ROLE_EXPERT_GATE && role <= TSR_ROLE_EXPERT_DOWN)
        return TSR_SYNTHETIC_EXPERTS;
    return TSR_SYNTHETIC_MODULES;
}

tsr_algo tsr_synthetic_algo(const tsr_synthetic_precision *precision, tsr_synthetic_module module,
                            int32_t ordinal)
{
    if (module == TSR_SYNTHETIC_MODULES || precision->count[module] == 0)
        return TSR_ALGO_NONE;
    return precision->algo[module][ordinal % precision->count[module]];
}
