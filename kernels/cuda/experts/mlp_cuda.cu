/*
 * down(silu(gate(x)) * up(x)) of one MLP:
 *
 *   x ──► operand rows ──► gate, up ──► wide ──► operand rows ──► out
 */
#include "kernels/cuda/experts/tiles_cuda.cuh"
#include "kernels/cuda/linear/linear_cuda.cuh"

enum { MANY_ROWS = 16 };

static tsr_cuda_tiles tiles_of(const tsr_cuda_device *cuda, const tsr_cuda_mlp *a,
                               const tsr_linear *linear, tsr_cuda_tiles_mode mode)
{
    const tsr_mlp *mlp = a->mlp;
    tsr_cuda_tiles t = {};

    t.y = cuda->work.wide;
    t.gate = mlp->gate;
    t.up = mlp->up;
    t.made = tsr_cuda_operand_of(cuda);
    t.made_up = tsr_cuda_up_operand_of(cuda);
    t.mode = mode;
    t.format = linear->format;
    t.activation = linear->activation;
    t.grouped = tsr_cuda_has_groups(linear->format, linear->activation);
    t.shares = tsr_cuda_share_rows(&mlp->gate, &mlp->up);
    t.out = linear->out;
    t.in = linear->in;
    t.rows = a->rows;
    t.together = tsr_cuda_pairs_together(linear->in, t.shares);
    return t;
}

/* One side alone, where gate and up are no pair. */
static tsr_status widen_side(tsr_cuda_device *cuda, const tsr_cuda_mlp *a, tsr_cuda_tiles_mode mode,
                             cudaStream_t stream)
{
    const tsr_linear *linear = mode == TSR_CUDA_TILES_UP ? &a->mlp->up : &a->mlp->gate;
    const tsr_cuda_tiles t = tiles_of(cuda, a, linear, mode);
    const tsr_status st = tsr_cuda_make_rows(cuda, linear, &a->from, &t.made, a->rows, stream);

    return st == TSR_OK ? tsr_cuda_multiply_tiles(cuda, &t, stream) : st;
}

static tsr_status widen(tsr_cuda_device *cuda, const tsr_cuda_mlp *a, cudaStream_t stream)
{
    const tsr_mlp *mlp = a->mlp;
    const tsr_cuda_tiles t = tiles_of(cuda, a, &mlp->gate, TSR_CUDA_TILES_GATED);
    tsr_status st = TSR_OK;

    if (mlp->gate.format != mlp->up.format || mlp->gate.activation != mlp->up.activation ||
        !tsr_cuda_is_packed(mlp->gate.format)) {
        st = widen_side(cuda, a, TSR_CUDA_TILES_GATE, stream);
        return st == TSR_OK ? widen_side(cuda, a, TSR_CUDA_TILES_UP, stream) : st;
    }
    st = tsr_cuda_make_rows(cuda, &mlp->gate, &a->from, &t.made, a->rows, stream);
    if (st == TSR_OK && !t.shares)
        st = tsr_cuda_make_rows(cuda, &mlp->up, &a->from, &t.made_up, a->rows, stream);
    return st == TSR_OK ? tsr_cuda_multiply_tiles(cuda, &t, stream) : st;
}

/* Many rows: gate and up by themselves, put together on the way into down. */
static tsr_status widen_many(tsr_cuda_device *cuda, const tsr_cuda_mlp *a, cudaStream_t stream)
{
    tsr_cuda_linears l = {};

    l.y[0] = cuda->work.wide;
    l.y[1] = cuda->work.wide_up;
    l.linear[0] = &a->mlp->gate;
    l.linear[1] = &a->mlp->up;
    l.from = a->from;
    l.count = 2;
    l.rows = a->rows;
    return tsr_cuda_run_linears(cuda, &l, stream);
}

tsr_status tsr_cuda_run_mlp(tsr_cuda_device *cuda, const tsr_cuda_mlp *a, cudaStream_t stream)
{
    const bool many = a->rows > MANY_ROWS;
    tsr_cuda_linears down = {};
    const tsr_status st = many ? widen_many(cuda, a, stream) : widen(cuda, a, stream);

    down.y[0] = a->out;
    down.add = a->add;
    down.linear[0] = &a->mlp->down;
    down.from.x = cuda->work.wide;
    down.from.up = many ? cuda->work.wide_up : NULL;
    down.from.x_stride = a->mlp->down.in;
    down.count = 1;
    down.rows = a->rows;
    return st == TSR_OK ? tsr_cuda_run_linears(cuda, &down, stream) : st;
}

tsr_status tsr_mlp_cuda(tsr_device *device, const tsr_mlp_args *a, tsr_stream s)
{
    tsr_cuda_mlp m = {};

    if (a->tokens == 0)
        return TSR_OK;
    m.out = (float *)a->out;
    m.mlp = a->mlp;
    m.from.x = (const float *)a->x;
    m.from.x_stride = (int64_t)(a->x_row_bytes / sizeof(float));
    m.rows = a->tokens;
    return tsr_cuda_run_mlp(tsr_cuda(device), &m, tsr_cuda_stream(device, s));
}
