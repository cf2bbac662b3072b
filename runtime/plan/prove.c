/*
 * Declared against stored: both must say the same, for each alone can be wrong without a sign.
 *
 *   claim    weight            weight_scale           weight_scale_2
 *   NVFP4    U8 [o, i / 2]     F8_E4M3 [o, i / 16]    one value         proven
 *   FP8      F8_E4M3 [o, i]    one value              -                 proven
 *   none     BF16 [o, i]       -                      -                 proven
 *   none     BF16 [o, i]       one value              -                 refused: read by nobody
 *   FP8      BF16 [o, i]       -                      -                 refused: contradicted
 *
 * Every tensor that finds a use is marked; what is left in the end belongs to nothing and is
 * refused too. All linears are looked at before anybody gives up, so that one run names everything.
 */
#include "runtime/plan/prove.h"

#include "runtime/checkpoint/module_name.h"
#include "runtime/plan/algos.h"
#include "runtime/plan/evidence.h"
#include "runtime/plan/modules.h"
#include "runtime/plan/resolve.h"

#include <stdio.h>
#include <string.h>

enum { TEXT_BYTES = 256 };

/* One linear under examination. */
typedef struct examination {
    tsr_prover *prover;
    tsr_linear_plan *linear;
    tsr_claim *claim;
    tsr_evidence found;
    char module[TSR_MODULE_NAME_BYTES];
} examination;

/* A linear is contradicted once, by its first tensor that does not fit: the others follow from it.
 * True for the first. */
static bool is_first(examination *x)
{
    const bool first = !x->claim->contradicted;

    x->claim->contradicted = true;
    return first;
}

/* `tensor` is not what the claim asks for; `wanted` ends the sentence. */
static void contradict(examination *x, const tsr_tensor *tensor, const char *wanted)
{
    char claim[TEXT_BYTES], stored[TEXT_BYTES];

    if (!is_first(x))
        return;
    tsr_claim_describe(x->prover->checkpoint, x->claim, sizeof(claim), claim);
    tsr_tensor_describe(tensor, sizeof(stored), stored);
    tsr_problems_add(x->prover->problems, TSR_SEVERITY_ERROR,
                     "tensor %s is %s, but %s is %s, which wants %s; the stored tensors look like "
                     "%s; correct the declaration or export again",
                     tensor->name, stored, x->module, claim, wanted,
                     tsr_evidence_looks_like(&x->found));
}

/* `tensor` is of the right kind and has another shape than config.json gives the module. */
static void misfit(examination *x, const tsr_tensor *tensor, const char *wanted)
{
    char stored[TEXT_BYTES];

    if (!is_first(x))
        return;
    tsr_tensor_describe(tensor, sizeof(stored), stored);
    tsr_problems_add(x->prover->problems, TSR_SEVERITY_ERROR,
                     "tensor %s is %s, but must be %s; config.json and the weights do not belong "
                     "together",
                     tensor->name, stored, wanted);
}

/* Modules that exporters leave alone, stored quantized. */
static void refuse_quantized(examination *x)
{
    char claim[TEXT_BYTES];

    if (!is_first(x))
        return;
    tsr_claim_describe(x->prover->checkpoint, x->claim, sizeof(claim), claim);
    tsr_problems_add(
        x->prover->problems, TSR_SEVERITY_ERROR,
        "tensor %s: %s is %s, but embeddings and routers are served unquantized only; export it so",
        x->found.weight->name, x->module, claim);
}

/* A tensor that the claimed format needs does not exist. */
static void miss(examination *x, const char *suffix)
{
    char claim[TEXT_BYTES];

    if (!is_first(x))
        return;
    tsr_claim_describe(x->prover->checkpoint, x->claim, sizeof(claim), claim);
    if (x->found.foreign != NULL)
        tsr_problems_add(x->prover->problems, TSR_SEVERITY_ERROR,
                         "tensor %s.%s is missing, and %s is the layout of another exporter "
                         "(compressed-tensors or GPTQ), which is not served; export with ModelOpt",
                         x->module, suffix, x->found.foreign->name);
    else
        tsr_problems_add(x->prover->problems, TSR_SEVERITY_ERROR,
                         "tensor %s.%s is missing; %s is %s; the download or export is incomplete",
                         x->module, suffix, x->module, claim);
}

/* A tensor that the claimed format has no use for. */
static void reject(examination *x, const tsr_tensor *tensor)
{
    char claim[TEXT_BYTES];

    if (tensor == NULL || !is_first(x))
        return;
    tsr_claim_describe(x->prover->checkpoint, x->claim, sizeof(claim), claim);
    tsr_problems_add(x->prover->problems, TSR_SEVERITY_ERROR,
                     "tensor %s is stored, but %s is %s and would not use it; the stored tensors "
                     "look like %s; correct the declaration or export again",
                     tensor->name, x->module, claim, tsr_evidence_looks_like(&x->found));
}

static tsr_tensor_place tensor_place(const tsr_tensor *tensor)
{
    if (tensor == NULL)
        return (tsr_tensor_place){.file = TSR_NO_FILE};
    return (tsr_tensor_place){.file = tensor->file,
                              .dtype = tensor->dtype,
                              .offset = tensor->offset,
                              .bytes = tensor->bytes};
}

static void prove_weight(examination *x, const tsr_algo_row *row)
{
    const tsr_tensor *w = x->found.weight;
    const tsr_linear_plan *l = x->linear;
    const int32_t columns = tsr_weight_columns(row->format, l->in);
    const tsr_dtype dtype = tsr_format_row_of(row->format)->weight_dtype;
    const bool plain = x->claim->algo == TSR_ALGO_NONE;
    const bool typed = plain ? tsr_dtype_is_plain(w->dtype) : w->dtype == dtype;
    const bool shaped = tsr_tensor_is_matrix(w, l->out, columns);
    char wanted[TEXT_BYTES];

    (void)snprintf(wanted, sizeof(wanted), "%s [%d, %d]",
                   plain ? "BF16, F16 or F32" : tsr_dtype_name(dtype), l->out, columns);
    if (!typed || (!shaped && columns < l->in)) /* other 4-bit formats pack otherwise */
        contradict(x, w, wanted);
    else if (!shaped)
        misfit(x, w, wanted);
}

static bool is_plain_scalar(const tsr_tensor *t)
{
    return tsr_dtype_is_plain(t->dtype) && tsr_tensor_is_scalar(t);
}

/* The scale that the format keeps beside the weight. */
static void prove_scale(examination *x, tsr_weight_format format, const tsr_tensor *scale)
{
    const tsr_format_row *row = tsr_format_row_of(format);
    const tsr_scale_shape shape = tsr_scale_shape_of(format, x->linear->out, x->linear->in);
    const char *dtype = tsr_dtype_name(row->scale_dtype);
    char wanted[TEXT_BYTES] = "one value of F32, F16 or BF16";
    bool shaped;

    if (row->scales == TSR_SCALES_TENSOR) {
        shaped = tsr_tensor_is_scalar(scale);
    } else if (row->scales == TSR_SCALES_CHANNEL) {
        shaped =
            tsr_tensor_is_vector(scale, shape.rows) || tsr_tensor_is_matrix(scale, shape.rows, 1);
        (void)snprintf(wanted, sizeof(wanted), "%s [%d]", dtype, shape.rows);
    } else if (row->scale_rows > 1) {
        shaped = tsr_tensor_is_block_grid(scale, shape.rows, shape.columns);
        (void)snprintf(wanted, sizeof(wanted), "%s [%d, %d] or [%d, 1, %d, 1]", dtype, shape.rows,
                       shape.columns, shape.rows, shape.columns);
    } else {
        shaped = tsr_tensor_is_matrix(scale, shape.rows, shape.columns);
        (void)snprintf(wanted, sizeof(wanted), "%s [%d, %d]", dtype, shape.rows, shape.columns);
    }
    if (!shaped || !tsr_scale_dtype_fits(format, scale->dtype))
        contradict(x, scale, wanted);
}

static void prove_scales(examination *x, const tsr_algo_row *row)
{
    tsr_evidence *e = &x->found;
    const bool quantized = x->claim->algo != TSR_ALGO_NONE;
    const tsr_tensor *scale = e->scale != NULL ? e->scale : e->scale_inv;
    const tsr_format_row *format = tsr_format_row_of(row->format);
    const bool inverse_is_scale = format->inverse_name && e->scale == NULL;

    if (!quantized) {
        reject(x, e->scale);
    } else if (scale == NULL) {
        miss(x, "weight_scale");
    } else {
        prove_scale(x, row->format, scale);
        x->linear->scale = tensor_place(scale);
    }
    if (!quantized || !inverse_is_scale)
        reject(x, e->scale_inv);
    if (!quantized || !format->global_scale)
        reject(x, e->global_scale);
    else if (e->global_scale == NULL)
        miss(x, "weight_scale_2");
    else if (!is_plain_scalar(e->global_scale))
        contradict(x, e->global_scale, "one value of F32, F16 or BF16");
    else
        x->linear->global_scale = tensor_place(e->global_scale);
}

static void prove_input(examination *x, const tsr_algo_row *row)
{
    tsr_evidence *e = &x->found;

    if (e->input_scale != NULL && !row->may_have_input_scale)
        reject(x, e->input_scale);
    else if (e->input_scale != NULL && !is_plain_scalar(e->input_scale))
        contradict(x, e->input_scale, "one value of F32, F16 or BF16");
    else
        x->linear->input_scale = tensor_place(e->input_scale);

    if (e->pre_quant_scale != NULL && !row->may_have_pre_quant_scale)
        reject(x, e->pre_quant_scale);
    else if (e->pre_quant_scale != NULL &&
             (!tsr_dtype_is_plain(e->pre_quant_scale->dtype) ||
              !tsr_tensor_is_vector(e->pre_quant_scale, x->linear->in)))
        misfit(x, e->pre_quant_scale, "BF16, F16 or F32, one value for each input");
    else
        x->linear->pre_quant_scale = tensor_place(e->pre_quant_scale);
}

static void prove_bias(examination *x)
{
    const tsr_tensor *bias = x->found.bias;
    const bool has = tsr_module_has_bias(&x->prover->checkpoint->model, x->linear->role);

    if (!has && bias != NULL)
        reject(x, bias);
    else if (has && bias == NULL)
        miss(x, "bias");
    else if (has &&
             (!tsr_dtype_is_plain(bias->dtype) || !tsr_tensor_is_vector(bias, x->linear->out)))
        misfit(x, bias, "BF16, F16 or F32, one value for each output");
    else
        x->linear->bias = tensor_place(bias);
}

/* What no kernel has in another format. */
static bool is_always_plain(tsr_role role)
{
    return role == TSR_ROLE_EMBED || role == TSR_ROLE_ROUTER;
}

/* What exporters leave alone unless they are told otherwise. */
static bool is_mostly_plain(tsr_role role)
{
    return is_always_plain(role) || role == TSR_ROLE_HEAD;
}

/*
 * Where the stored tensors may decide what the declaration left open:
 *   a uniform format does not mean routers, head and embedding unless they are stored in it;
 *   in a model that was FP8 in 128x128 blocks from the start, "not quantized" means that format.
 */
static void settle(examination *x)
{
    const tsr_evidence *e = &x->found;
    tsr_claim *claim = x->claim;
    const bool plain = tsr_dtype_is_plain(e->weight->dtype) && e->scale == NULL &&
                       e->scale_inv == NULL && e->global_scale == NULL;
    const bool blocks =
        e->weight->dtype == TSR_DTYPE_F8_E4M3 && (e->scale != NULL || e->scale_inv != NULL);

    if (claim->origin == TSR_ORIGIN_UNIFORM && is_mostly_plain(x->linear->role) && plain) {
        claim->algo = TSR_ALGO_NONE;
        claim->group_size = 0;
        claim->refused = false;
    }
    if (x->prover->checkpoint->declared.fp8_block_base && claim->algo == TSR_ALGO_NONE && blocks &&
        claim->origin != TSR_ORIGIN_KEY && claim->origin != TSR_ORIGIN_BLOCK) {
        claim->algo = TSR_ALGO_FP8_BLOCK_SCALES;
        claim->group_size = 128;
    }
}

void tsr_prove_linear(tsr_prover *prover, tsr_linear_plan *linear, tsr_claim *claim)
{
    examination x = {.prover = prover, .linear = linear, .claim = claim};
    const tsr_algo_row *row;

    tsr_module_name(linear, x.module);
    x.found = tsr_evidence_gather(prover->index, x.module);
    if (x.found.weight == NULL) {
        miss(&x, "weight");
        return;
    }
    settle(&x);
    row = tsr_algo_row_of(claim->algo);
    linear->algo = claim->algo;
    linear->format = row->format;
    if (claim->algo == TSR_ALGO_NONE)
        (void)tsr_format_unquantized(x.found.weight->dtype, &linear->format);
    linear->activation = row->activation;
    linear->weight = tensor_place(x.found.weight);
    if (claim->refused)
        return;
    if (is_always_plain(linear->role) && claim->algo != TSR_ALGO_NONE &&
        !tsr_dtype_is_plain(x.found.weight->dtype)) {
        refuse_quantized(&x);
        return;
    }
    if (linear->in % 16 != 0) {
        contradict(&x, x.found.weight, "a number of inputs that is a multiple of 16");
        return;
    }
    prove_weight(&x, row);
    prove_scales(&x, row);
    prove_input(&x, row);
    prove_bias(&x);
}

bool tsr_prove_vector(tsr_prover *prover, tsr_vector_plan *vector)
{
    char name[TSR_MODULE_NAME_BYTES], stored[TEXT_BYTES];
    const tsr_tensor *tensor;
    const bool is_scale = vector->role == TSR_ROLE_K_SCALE || vector->role == TSR_ROLE_V_SCALE;

    tsr_vector_name(vector, name);
    tensor = tsr_checkpoint_find(prover->checkpoint, name);
    if (tensor == NULL) {
        if (!is_scale)
            tsr_problems_add(prover->problems, TSR_SEVERITY_ERROR,
                             "tensor %s is missing; the download or export is incomplete", name);
        return false;
    }
    tsr_tensor_index_consume(prover->index, tensor);
    vector->place = tensor_place(tensor);
    if (tsr_dtype_is_plain(tensor->dtype) &&
        (is_scale ? tsr_tensor_is_scalar(tensor) : tsr_tensor_is_vector(tensor, vector->elements)))
        return true;
    tsr_tensor_describe(tensor, sizeof(stored), stored);
    tsr_problems_add(prover->problems, TSR_SEVERITY_ERROR,
                     "tensor %s is %s, but must be BF16, F16 or F32 [%d]; config.json and the "
                     "weights do not belong together",
                     tensor->name, stored, vector->elements);
    return true;
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);

    return n >= m && strcmp(text + n - m, end) == 0;
}

static void refuse_leftover(const tsr_prover *prover, const char *name)
{
    if (ends_with(name, ".k_scale") || ends_with(name, ".v_scale"))
        tsr_problems_add(prover->problems, TSR_SEVERITY_ERROR,
                         "tensor %s is stored, but no quantized KV cache is declared; correct the "
                         "declaration or export again",
                         name);
    else
        tsr_problems_add(prover->problems, TSR_SEVERITY_ERROR,
                         "tensor %s belongs to nothing in this model; it is refused rather than "
                         "dropped: config.json and the weights may not belong together",
                         name);
}

void tsr_prove_leftovers(const tsr_prover *prover)
{
    const tsr_checkpoint *c = prover->checkpoint;
    size_t skipped = 0;

    for (size_t i = 0; i < c->tensor_count; i++) {
        const char *name = c->tensors[i].name;
        if (prover->index->consumed[i] || ends_with(name, "rotary_emb.inv_freq"))
            continue;
        if (tsr_model_is_mtp_name(&c->model, name))
            skipped++;
        else
            refuse_leftover(prover, name);
    }
    if (skipped > 0)
        tsr_problems_add(prover->problems, TSR_SEVERITY_NOTE,
                         "%zu tensors of layers beyond the model's %d (multi-token prediction) are "
                         "not used",
                         skipped, c->model.layers);
}
