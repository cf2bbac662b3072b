/*
 * The router: norm, logits by the gate in f32 (router_cuda.cuh), then K of E experts for each row
 * (choose_cuda.cuh), as router_cpu.c has it:
 *
 *   softmax   choice = p
 *             weight = p, divided by the sum of the chosen where normalised
 *   sigmoid   choice = s + bias, -inf outside the best groups
 *             weight = s, / (sum + 1e-20) where normalised, * routed_scale
 *
 * Sums over the chosen are in slot order. Equal choices go to the lower id.
 */
#include "kernels/cuda/router/router_cuda.cuh"

enum { MANY = 640 }; /* rows from which on the wide kernel is faster */

static choose_args choose_args_of(const tsr_router *router)
{
    choose_args c = {};

    c.bias = router->bias;
    c.kind = router->kind;
    c.experts = router->gate->out;
    c.top_k = router->top_k;
    c.groups = router->kind == TSR_ROUTER_SIGMOID ? router->groups : 1;
    c.top_groups = router->top_groups;
    c.normalise = router->normalise;
    c.routed_scale = router->routed_scale;
    return c;
}

tsr_status tsr_cuda_prepare_router(void)
{
    const tsr_status st = tsr_route_prepare_few();

    return st == TSR_OK ? tsr_route_prepare_many() : st;
}

/* Whether there are enough rows, and room for what stands between the kernels: where operand rows
 * stand otherwise. */
static bool is_for_many(const tsr_cuda_device *cuda, const route_args *a)
{
    const tsr_work_shape *shape = &cuda->base.shape;
    const size_t rows = (size_t)tsr_larger(shape->max_tokens, shape->max_answers);
    const size_t room = rows * (size_t)tsr_cuda_padded(shape->max_in) * sizeof(uint16_t);

    return a->tokens >= MANY && tsr_route_many_bytes(a) <= room;
}

static tsr_status route(tsr_cuda_device *cuda, route_args *a, cudaStream_t stream)
{
    a->slice = route_slice(a->gate.in);
    a->share = 1.0F / (float)a->gate.in;
    return is_for_many(cuda, a)
               ? tsr_route_many(a, cuda->work.rows, cuda->gemm.processors, cuda->faults, stream)
               : tsr_route_few(a, cuda->faults, stream);
}

tsr_status tsr_router_cuda(tsr_device *device, const tsr_router_args *a, tsr_stream s)
{
    route_args r = {};

    if (a->tokens == 0)
        return TSR_OK;
    r.c = choose_args_of(a->router);
    r.c.expert = a->expert;
    r.c.expert_stride = a->router->top_k;
    r.c.weight = a->weight;
    r.gate = *a->router->gate;
    r.x = (const float *)a->x;
    r.tokens = a->tokens;
    return route(tsr_cuda(device), &r, tsr_cuda_stream(device, s));
}

tsr_status tsr_choose_cuda(tsr_device *device, const tsr_choose_block *b, tsr_stream s)
{
    tsr_cuda_device *cuda = tsr_cuda(device);
    const tsr_experts *e = b->experts;
    route_args r = {};

    r.c = choose_args_of(&e->router);
    r.c.expert = (int32_t *)b->rows + e->hidden;
    r.c.expert_stride = (int64_t)(e->row_bytes / sizeof(int32_t));
    r.c.weight = b->weight;
    r.c.tag = b->tag;
    r.c.tag_of = e->tag_of;
    r.gate = *e->router.gate;
    r.x = (const float *)b->x;
    r.norm = b->norm;
    r.normed = (float *)b->rows;
    r.normed_stride = r.c.expert_stride;
    r.tokens = b->tokens;
    r.eps = b->eps;
    if (b->stays && b->tokens == 1 && tsr_cuda_takes_told(cuda, e, b->rows)) {
        r.c.told = cuda->work.told;
        r.c.launches = cuda->work.launch;
    }
    return route(cuda, &r, tsr_cuda_stream(device, s));
}
