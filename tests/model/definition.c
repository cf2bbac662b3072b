#include "tests/model/definition.h"

#include "tests/test.h"

#include "runtime/base/numeric.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 128, NAME_BYTES = 200 };

/* rows of `width` numbers */
typedef struct matrix {
    double *at;
    int rows;
    int width;
} matrix;

static matrix make(int rows, int width)
{
    double *at = calloc((size_t)rows * (size_t)width + 1, sizeof(*at));
    assert_non_null(at);
    return (matrix){.at = at, .rows = rows, .width = width};
}

static double *row(matrix m, int r)
{
    return m.at + (size_t)r * (size_t)m.width;
}

static void join(char to[NAME_BYTES], const char *prefix, const char *last)
{
    assert_true(snprintf(to, NAME_BYTES, "%s%s", prefix, last) < NAME_BYTES);
}

static float *numbers(const definition *d, const char *name)
{
    size_t count = 0;
    return edit_floats(edit_find(&d->tensors, name), &count);
}

static bool has(const definition *d, const char *name)
{
    for (size_t i = 0; i < d->tensors.count; i++) {
        if (strcmp(d->tensors.tensors[i].name, name) == 0)
            return true;
    }
    return false;
}

/* The weight of a linear, its blocks scaled. */
static matrix weight_of(const definition *d, const char *module, bool *ret_quantized)
{
    char name[NAME_BYTES];
    join(name, module, ".weight");
    const edit_tensor *t = edit_find(&d->tensors, name);
    const matrix w = make((int)t->shape[0], (int)t->shape[1]);
    float *values = numbers(d, name);
    join(name, module, ".weight_scale");
    *ret_quantized = has(d, name);
    float *scales = *ret_quantized ? numbers(d, name) : NULL;

    const int across = (w.width + BLOCK - 1) / BLOCK;
    for (int o = 0; o < w.rows; o++) {
        for (int i = 0; i < w.width; i++) {
            const double scale =
                scales != NULL ? (double)scales[o / BLOCK * across + i / BLOCK] : 1;
            row(w, o)[i] = (double)values[(size_t)o * (size_t)w.width + (size_t)i] * scale;
        }
    }
    free(values);
    free(scales);
    return w;
}

/* E4M3 over the largest of each 128 neighbours, in fp32 as a device does it. */
static void quantize_row(double *x, int width)
{
    for (int first = 0; first < width; first += BLOCK) {
        const int end = first + BLOCK < width ? first + BLOCK : width;
        float largest = 0;
        for (int i = first; i < end; i++)
            largest = fmaxf(largest, fabsf((float)x[i]));
        const float scale = fmaxf(largest / 448.0F, 1e-30F);
        for (int i = first; i < end; i++)
            x[i] = (double)(tsr_e4m3_to_f32(tsr_f32_to_e4m3((float)x[i] / scale)) * scale);
    }
}

static matrix linear(const definition *d, const char *prefix, const char *last, matrix x)
{
    char module[NAME_BYTES];
    join(module, prefix, last);
    bool quantized = false;
    matrix w = weight_of(d, module, &quantized);
    assert_int_equal(w.width, x.width);
    const matrix y = make(x.rows, w.rows);
    double *in = calloc((size_t)x.width, sizeof(*in));
    assert_non_null(in);
    for (int t = 0; t < x.rows; t++) {
        memcpy(in, row(x, t), (size_t)x.width * sizeof(*in));
        if (quantized && d->group_activations)
            quantize_row(in, x.width);
        for (int o = 0; o < w.rows; o++) {
            for (int i = 0; i < x.width; i++)
                row(y, t)[o] += in[i] * row(w, o)[i];
        }
    }
    free(in);
    free(w.at);
    return y;
}

/* RMSNorm of every `width` neighbours, in place. */
static void normalise(const definition *d, const char *name, matrix x, int width)
{
    float *weight = numbers(d, name);
    for (size_t first = 0; first < (size_t)x.rows * (size_t)x.width; first += (size_t)width) {
        double squares = 0;
        for (int i = 0; i < width; i++)
            squares += x.at[first + (size_t)i] * x.at[first + (size_t)i];
        const double factor = 1 / sqrt(squares / width + d->eps);
        for (int i = 0; i < width; i++)
            x.at[first + (size_t)i] *= factor * (double)weight[i];
    }
    free(weight);
}

static matrix normed(const definition *d, const char *prefix, const char *last, matrix x)
{
    char name[NAME_BYTES];
    join(name, prefix, last);
    const matrix y = make(x.rows, x.width);
    memcpy(y.at, x.at, (size_t)x.rows * (size_t)x.width * sizeof(*y.at));
    normalise(d, name, y, x.width);
    return y;
}

static void rotate(const definition *d, matrix x)
{
    const int half = d->head_dim / 2;
    for (int t = 0; t < x.rows; t++) {
        for (int h = 0; h < x.width; h += d->head_dim) {
            for (int i = 0; i < half; i++) {
                const double angle = t / pow(d->theta, 2.0 * i / d->head_dim);
                double *low = row(x, t) + h + i;
                const double a = low[0];
                const double b = low[half];
                low[0] = a * cos(angle) - b * sin(angle);
                low[half] = b * cos(angle) + a * sin(angle);
            }
        }
    }
}

static double dot(const double *a, const double *b, int count)
{
    double sum = 0;
    for (int i = 0; i < count; i++)
        sum += a[i] * b[i];
    return sum;
}

/* One query head of one position over the positions up to it. */
static void attend_head(const definition *d, const double *q, matrix k, matrix v, int last,
                        double *out)
{
    double largest = -HUGE_VAL;
    double sum = 0;
    double *p = calloc((size_t)last + 1, sizeof(*p));
    assert_non_null(p);
    for (int t = 0; t <= last; t++) {
        p[t] = dot(q, row(k, t), d->head_dim) / sqrt(d->head_dim);
        largest = fmax(largest, p[t]);
    }
    for (int t = 0; t <= last; t++)
        sum += p[t] = exp(p[t] - largest);
    for (int t = 0; t <= last; t++) {
        for (int i = 0; i < d->head_dim; i++)
            out[i] += p[t] / sum * row(v, t)[i];
    }
    free(p);
}

static void add(matrix to, matrix x)
{
    for (size_t i = 0; i < (size_t)x.rows * (size_t)x.width; i++)
        to.at[i] += x.at[i];
    free(x.at);
}

static void attention(const definition *d, const char *layer, matrix x)
{
    char name[NAME_BYTES];
    const matrix h = normed(d, layer, "input_layernorm.weight", x);
    const matrix q = linear(d, layer, "self_attn.q_proj", h);
    const matrix k = linear(d, layer, "self_attn.k_proj", h);
    const matrix v = linear(d, layer, "self_attn.v_proj", h);
    join(name, layer, "self_attn.q_norm.weight");
    normalise(d, name, q, d->head_dim);
    join(name, layer, "self_attn.k_norm.weight");
    normalise(d, name, k, d->head_dim);
    rotate(d, q);
    rotate(d, k);

    const matrix out = make(x.rows, q.width);
    for (int t = 0; t < x.rows; t++) {
        for (int head = 0; head < d->q_heads; head++) {
            const int shared = head / (d->q_heads / d->kv_heads) * d->head_dim;
            const matrix of_k = {.at = k.at + shared, .rows = k.rows, .width = k.width};
            const matrix of_v = {.at = v.at + shared, .rows = v.rows, .width = v.width};
            const size_t at = (size_t)head * (size_t)d->head_dim;
            attend_head(d, row(q, t) + at, of_k, of_v, t, row(out, t) + at);
        }
    }
    add(x, linear(d, layer, "self_attn.o_proj", out));
    free(out.at);
    free(v.at);
    free(k.at);
    free(q.at);
    free(h.at);
}

static void expert(const definition *d, const char *prefix, matrix h, double weight, double *to)
{
    const matrix gate = linear(d, prefix, "gate_proj", h);
    const matrix up = linear(d, prefix, "up_proj", h);
    for (int i = 0; i < gate.width; i++)
        up.at[i] *= gate.at[i] / (1 + exp(-gate.at[i]));
    const matrix down = linear(d, prefix, "down_proj", up);
    for (int i = 0; i < down.width; i++)
        to[i] += weight * down.at[i];
    free(down.at);
    free(up.at);
    free(gate.at);
}

static int largest_of(const double *values, int count)
{
    int best = 0;
    for (int i = 1; i < count; i++)
        best = values[i] > values[best] ? i : best;
    return best;
}

/* The chosen experts of one token; their weights sum to one. */
static void route(const definition *d, const char *layer, double *logits, matrix h, double *to)
{
    int chosen[16];
    double weight[16];
    double sum = 0;
    for (int k = 0; k < d->top_k; k++) {
        chosen[k] = largest_of(logits, d->experts);
        weight[k] = exp(logits[chosen[k]]);
        logits[chosen[k]] = -HUGE_VAL;
        sum += weight[k];
    }
    for (int k = 0; k < d->top_k; k++) {
        char prefix[NAME_BYTES];
        char last[40];
        (void)snprintf(last, sizeof(last), "mlp.experts.%d.", chosen[k]);
        join(prefix, layer, last);
        expert(d, prefix, h, weight[k] / sum, to);
    }
}

static void experts(const definition *d, const char *layer, matrix x)
{
    const matrix h = normed(d, layer, "post_attention_layernorm.weight", x);
    const matrix logits = linear(d, layer, "mlp.gate", h);
    for (int t = 0; t < x.rows; t++) {
        const matrix one = {.at = row(h, t), .rows = 1, .width = h.width};
        route(d, layer, row(logits, t), one, row(x, t));
    }
    free(logits.at);
    free(h.at);
}

float *definition_logits(const definition *d, const int32_t *tokens, int count)
{
    const matrix x = make(count, d->hidden);
    float *table = numbers(d, "model.embed_tokens.weight");
    for (int t = 0; t < count; t++) {
        for (int i = 0; i < d->hidden; i++)
            row(x, t)[i] = (double)table[(size_t)tokens[t] * (size_t)d->hidden + (size_t)i];
    }
    free(table);

    for (int l = 0; l < d->layers; l++) {
        char layer[NAME_BYTES];
        (void)snprintf(layer, sizeof(layer), "model.layers.%d.", l);
        attention(d, layer, x);
        experts(d, layer, x);
    }
    const matrix h = normed(d, "", "model.norm.weight", x);
    const matrix logits = linear(d, "", "lm_head", h);
    const size_t values = (size_t)count * (size_t)d->vocab;
    float *result = calloc(values, sizeof(*result));
    assert_non_null(result);
    for (size_t i = 0; i < values; i++)
        result[i] = (float)logits.at[i];
    free(logits.at);
    free(h.at);
    free(x.at);
    return result;
}
