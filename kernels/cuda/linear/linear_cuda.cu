/*
 * Linears: operand rows where they do not stand yet, then products, as many linears in one launch as
 * see the same rows in one format. Weights in F32 have a plain kernel, a warp a sum.
 */
#include "kernels/cuda/linear/linear_cuda.cuh"

#include "kernels/cuda/device/block_cuda.cuh"
#include "kernels/cuda/device/number_cuda.cuh"
#include "kernels/cuda/linear/few_cuda.cuh"
#include "kernels/cuda/linear/gemm_cuda.cuh"
#include "kernels/cuda/linear/split_cuda.cuh"
#include "kernels/cuda/linear/tall_cuda.cuh"
#include "kernels/cuda/operands/norm_cuda.cuh"

/* An unquantized weight as it is: a warp a sum, in f32, over a row in F16. */
static __global__ void plain_kernel(tsr_cuda_product p, tsr_cuda_faults faults)
{
    const tsr_linear &l = p.linear[0];
    const int32_t lane = (int32_t)(threadIdx.x % TSR_CUDA_LANES);
    const int64_t row = (int64_t)blockIdx.x * TSR_CUDA_WARPS + threadIdx.x / TSR_CUDA_LANES;
    const int64_t token = blockIdx.y;
    const uint16_t *x = p.x.rows + token * tsr_cuda_padded(l.in);
    float sum = 0.0F;

    tsr_admit_kernel();
    tsr_await_kernel();
    if (tsr_is_faulty(faults) || row >= l.out)
        return;
    for (int32_t k = lane; k < l.in; k += TSR_CUDA_LANES) {
        sum = fmaf(tsr_from_f16(x[k]), ((const float *)l.weight)[row * l.in + k], sum);
    }
    sum = tsr_warp_sum(sum) * p.x.scale[token];
    if (l.bias != NULL)
        sum += l.bias[row];
    if (lane != 0)
        return;
    if (p.add != NULL)
        sum += p.add[token * p.y_stride[0] + row];
    p.y[0][token * p.y_stride[0] + row] = sum;
}

static tsr_status multiply_plainly(tsr_cuda_device *cuda, const tsr_cuda_product *p,
                                   cudaStream_t stream)
{
    const dim3 grid(tsr_cuda_ceil(p->linear[0].out, TSR_CUDA_WARPS), (unsigned)p->rows);
    const tsr_cuda_launch_shape at = {grid, TSR_CUDA_THREADS, 0, stream, 0};

    return tsr_cuda_launch(at, plain_kernel, *p, cuda->faults);
}

tsr_status tsr_cuda_multiply(tsr_cuda_device *cuda, const tsr_cuda_product *p, cudaStream_t stream)
{
    if (!tsr_cuda_is_packed(p->linear[0].format))
        return multiply_plainly(cuda, p, stream);
    if (tsr_few_takes(&cuda->gemm, p, NULL))
        return tsr_few_multiply(&cuda->gemm, p, NULL, stream);
    if (tsr_tall_takes(&cuda->gemm, p, NULL))
        return tsr_tall_multiply(cuda, p, NULL, stream);
    return tsr_split_takes(&cuda->gemm, p) ? tsr_split_multiply(&cuda->gemm, p, stream)
                                           : tsr_gemm_dense(&cuda->gemm, p, stream);
}

/* Who multiplies and makes operand rows as well. */
typedef enum maker { MAKER_NONE, MAKER_FEW, MAKER_TALL } maker;

static maker maker_of(const tsr_cuda_device *cuda, const tsr_cuda_product *p,
                      const tsr_cuda_source *from)
{
    if (from->left.sums != NULL)
        return MAKER_FEW;
    if (from->count != NULL || from->up != NULL || !tsr_few_makes(&p->linear[0], p->rows))
        return MAKER_NONE;
    if (from->row == NULL && tsr_few_takes(&cuda->gemm, p, from))
        return MAKER_FEW;
    return tsr_tall_takes(&cuda->gemm, p, from) ? MAKER_TALL : MAKER_NONE;
}

/* Operand rows by a kernel of their own. */
static tsr_status make_rows(tsr_cuda_device *cuda, const tsr_cuda_product *p,
                            const tsr_cuda_source *from, cudaStream_t stream)
{
    const tsr_stream s = {stream};
    tsr_status st = TSR_OK;

    if (from->row != NULL)
        st = tsr_cuda_check_x_rows(&cuda->base, from->row, p->rows, s);
    return st == TSR_OK ? tsr_cuda_make_rows(cuda, &p->linear[0], from, &p->x, p->rows, stream)
                        : st;
}

bool tsr_cuda_takes_splits(const tsr_cuda_device *cuda, const tsr_linear *o, int32_t rows)
{
    tsr_cuda_product p = {};

    p.linear[0] = *o;
    p.count = 1;
    p.rows = rows;
    const bool looks = o->activation == TSR_ACTIVATION_FP8_TOKEN ||
                       (o->activation == TSR_ACTIVATION_NONE && o->format != TSR_WEIGHT_BF16);

    return rows == 1 && !looks && tsr_few_makes(o, rows) && tsr_few_takes(&cuda->gemm, &p, NULL);
}

/* Linears that follow linear `first` and go with it in one launch. */
static int32_t run_length(const tsr_cuda_linears *a, int32_t first)
{
    int32_t count = 1;

    if (!tsr_cuda_is_packed(a->linear[first]->format))
        return 1;
    while (first + count < a->count &&
           a->linear[first + count]->format == a->linear[first]->format &&
           tsr_cuda_share_rows(a->linear[first + count], a->linear[first]))
        count++;
    return count;
}

tsr_status tsr_cuda_run_linears(tsr_cuda_device *cuda, const tsr_cuda_linears *a,
                                cudaStream_t stream)
{
    bool stands = a->entered && !tsr_few_makes(a->linear[0], a->rows);
    tsr_status st = TSR_OK;

    for (int32_t i = 0; st == TSR_OK && i < a->count;) {
        tsr_cuda_product p = {};
        p.add = a->add;
        p.x = tsr_cuda_operand_of(cuda);
        p.rows = a->rows;
        p.count = run_length(a, i);
        for (int32_t j = 0; j < p.count; j++) {
            p.linear[j] = *a->linear[i + j];
            p.y[j] = a->y[i + j];
            p.y_stride[j] = a->linear[i + j]->out;
        }
        stands = stands && (i == 0 || tsr_cuda_share_rows(a->linear[i], a->linear[i - 1]));
        p.late = stands && cuda->waits;
        i += p.count;
        const maker by = a->made || stands ? MAKER_NONE : maker_of(cuda, &p, &a->from);
        if (by == MAKER_FEW) {
            st = tsr_few_multiply(&cuda->gemm, &p, &a->from, stream);
        } else if (by == MAKER_TALL) {
            st = tsr_tall_multiply(cuda, &p, &a->from, stream);
        } else {
            if (a->made)
                p.x.scale = cuda->work.ones;
            else if (!stands)
                st = make_rows(cuda, &p, &a->from, stream);
            stands = true;
            if (st == TSR_OK)
                st = tsr_cuda_multiply(cuda, &p, stream);
        }
    }
    return st;
}

tsr_status tsr_linears_cuda(tsr_device *device, const tsr_linears_args *a, tsr_stream s)
{
    tsr_cuda_linears l = {};

    if (a->tokens == 0)
        return TSR_OK;
    l.from.x = (const float *)a->x;
    l.from.x_stride = a->linear[0]->in;
    l.count = a->count;
    l.rows = a->tokens;
    for (int32_t i = 0; i < a->count; i++) {
        l.linear[i] = a->linear[i];
        l.y[i] = (float *)a->out[i];
    }
    return tsr_cuda_run_linears(tsr_cuda(device), &l, tsr_cuda_stream(device, s));
}

tsr_status tsr_head_cuda(tsr_device *device, const tsr_head_args *a, tsr_stream s)
{
    tsr_cuda_linears l = {};

    if (a->rows == 0)
        return TSR_OK;
    l.from.x = (const float *)a->x;
    l.from.x_stride = a->head->in;
    l.count = 1;
    l.rows = a->rows;
    l.linear[0] = a->head;
    l.y[0] = a->logits;
    return tsr_cuda_run_linears(tsr_cuda(device), &l, tsr_cuda_stream(device, s));
}
