/* Bytes of each rank, and what is said when they are too many. */
#include "runtime/plan/budget.h"

#include "runtime/plan/byte_count.h"
#include "runtime/plan/limits.h"
#include "runtime/plan/loading.h"
#include "runtime/plan/placement.h"
#include "runtime/plan/shapes.h"
#include "tests/plan/made_checkpoint.h"
#include "tests/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The shapes of released models, experts NVFP4: enough of them to count by hand. */
static tsr_model_facts released(int32_t layers, int32_t hidden, int32_t intermediate,
                                int32_t experts)
{
    tsr_model_facts model = {.layers = layers,
                             .hidden = hidden,
                             .vocab = 1024,
                             .q_heads = 64,
                             .kv_heads = 4,
                             .head_dim = 128,
                             .rotary_dim = 128,
                             .expert_intermediate = intermediate,
                             .experts = experts,
                             .top_k = 8,
                             .groups = 1,
                             .top_groups = 1,
                             .max_positions = 40960};
    for (int32_t layer = 0; layer < layers; layer++)
        model.sparse[layer] = true;
    return model;
}

static uint64_t expert_bytes(const char *target, const tsr_model_facts *m, tsr_weight_format format)
{
    const tsr_target *t = tsr_target_find(target);

    return 2 * t->linear_bytes(format, m->expert_intermediate, m->hidden, false, false) +
           t->linear_bytes(format, m->hidden, m->expert_intermediate, false, false);
}

/* One expert's weights and group scales: 3 * H * I * (1/2 + 1/16) bytes in NVFP4. Alignment may add
 * less than 1 KiB. */
static void an_expert_of_a_released_model_takes_the_published_bytes(void **state)
{
    static const struct {
        int32_t hidden, intermediate;
        double nvfp4, fp8, bf16; /* MiB */
    } cases[] = {
        {2048, 768, 2.53, 4.50, 9.00},   {4096, 1536, 10.13, 18.0, 36.0},
        {6144, 2560, 25.3, 45.0, 90.0},  {4096, 1408, 9.28, 16.5, 33.0},
        {5120, 1536, 12.66, 22.5, 45.0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        tsr_model_facts m = released(1, cases[i].hidden, cases[i].intermediate, 128);
        const uint64_t weights = 3 * (uint64_t)m.hidden * (uint64_t)m.expert_intermediate;
        static const char *const targets[] = {"h200", "cpu"};
        for (int t = 0; t < 2; t++) {
            const uint64_t nvfp4 = expert_bytes(targets[t], &m, TSR_WEIGHT_NVFP4);
            const uint64_t fp8 = expert_bytes(targets[t], &m, TSR_WEIGHT_FP8);
            assert_in_range(nvfp4, weights / 2 + weights / 16, weights / 2 + weights / 16 + 1024);
            assert_in_range(fp8, weights, weights + 1024);
            assert_float_equal(cases[i].nvfp4, (double)nvfp4 / (1 << 20), 0.05);
            assert_float_equal(cases[i].fp8, (double)fp8 / (1 << 20), 0.05);
            assert_float_equal(cases[i].bf16,
                               (double)expert_bytes(targets[t], &m, TSR_WEIGHT_BF16) / (1 << 20),
                               0.05);
        }
    }
}

static void bf16_keys_and_values_of_a_token_take_the_published_bytes(void **state)
{
    static const struct {
        int32_t layers, kv_heads;
        uint64_t bytes;
    } cases[] = {
        {48, 4, 98304}, {94, 4, 192512}, {62, 8, 253952}, {46, 8, 188416}, {92, 8, 376832}};
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        tsr_model_facts m = released(cases[i].layers, 2048, 768, 128);
        tsr_engine_limits limits = {.kv_blocks = 10, .kv_block_tokens = 16};
        m.kv_heads = cases[i].kv_heads;
        assert_int_equal(cases[i].bytes * 160, tsr_kv_bytes(&m, &limits, TSR_KV_BF16));
        assert_int_equal(cases[i].bytes * 80, tsr_kv_bytes(&m, &limits, TSR_KV_FP8));
    }
}

static void experts_are_consecutive_and_even_on_any_number_of_ranks(void **state)
{
    (void)state;
    for (int32_t experts = 1; experts <= 40; experts++) {
        for (int32_t ranks = 1; ranks <= experts; ranks++) {
            int32_t held[40] = {0};
            for (int32_t e = 0, last = 0; e < experts; e++) {
                const int32_t rank = tsr_placement_rank(experts, ranks, e);
                assert_in_range(rank, last, last + 1);
                last = rank;
                held[rank]++;
            }
            for (int32_t rank = 0; rank < ranks; rank++)
                assert_int_equal(experts / ranks + (rank < experts % ranks), held[rank]);
        }
    }
}

static void eight_experts_on_three_and_five_ranks(void **state)
{
    static const int32_t three[] = {0, 0, 0, 1, 1, 1, 2, 2}, five[] = {0, 0, 1, 1, 2, 2, 3, 4};
    tsr_model_facts m = released(2, 64, 32, 8);
    int32_t rank[16];
    (void)state;
    m.sparse[0] = false;
    tsr_placement_fill(&m, 3, rank);
    assert_memory_equal(three, rank + 8, sizeof(three));
    tsr_placement_fill(&m, 5, rank);
    assert_memory_equal(five, rank + 8, sizeof(five));
    for (int e = 0; e < 8; e++)
        assert_int_equal(-1, rank[e]);
}

typedef struct built {
    tsr_status status;
    tsr_plan *plan;
    bool fits;
    tsr_problems problems;
} built;

static built build(const tsr_plan_request *request)
{
    tsr_model_facts model = made_model();
    made_checkpoint *made = made_open(&model, stored_nvfp4_experts);
    built b = {0};

    made_keys_as_stored(made);
    b.status = tsr_plan_build(made_view(made), request, &b.problems, &b.plan, &b.fits);
    made_close(made);
    return b;
}

static void close_built(built *b)
{
    tsr_plan_close(b->plan);
    tsr_problems_close(&b->problems);
}

static uint64_t total(const tsr_plan *plan, int32_t rank)
{
    return tsr_rank_budget_total(&plan->budget[rank]);
}

/* Weights of the ranks add up: what all share on each, every expert on one. */
static void weights_of_all_ranks_add_up(void **state)
{
    tsr_plan_request request = {
        .ranks = 1, .target = tsr_target_find("cpu"), .memory_bytes = UINT64_C(1) << 30};
    built one = build(&request);
    uint64_t shared = one.plan->budget[0].weights_bytes, sum = 0;
    (void)state;
    for (int32_t i = 0; i < one.plan->linear_count; i++) {
        const tsr_linear_plan *l = &one.plan->linears[i];
        if (l->expert >= 0)
            shared -= tsr_cpu_linear_bytes(l->format, l->out, l->in, false, false);
    }
    request.ranks = 3;
    built three = build(&request);
    for (int32_t rank = 0; rank < 3; rank++)
        sum += three.plan->budget[rank].weights_bytes;
    assert_int_equal(one.plan->budget[0].weights_bytes + 2 * shared, sum);
    assert_true(three.plan->budget[0].weights_bytes > three.plan->budget[2].weights_bytes);
    close_built(&one);
    close_built(&three);
}

/* The need that decides is the total of the rank that has most, the first of an uneven
 * placement. */
static void the_largest_rank_decides(void **state)
{
    tsr_model_facts model = made_model();
    made_checkpoint *made = made_open(&model, stored_nvfp4_experts);
    tsr_problems problems = {0};
    tsr_precision *precision;
    tsr_budget budget;
    (void)state;
    made_keys_as_stored(made);
    ASSERT_STATUS(TSR_OK, tsr_precision_read(made_view(made), &problems, &precision));
    const tsr_plan_request request = {.ranks = 1, .target = tsr_target_find("h200")};
    ASSERT_STATUS(TSR_OK, tsr_budget_open(&model, precision, &request, &budget));
    for (int32_t ranks = 1; ranks <= MADE_EXPERTS; ranks++) {
        const tsr_setting setting = {
            .limits = {512, 8, 64, 32, 16, 100, 64, 1}, .kv_format = TSR_KV_BF16, .ranks = ranks};
        const int32_t largest = tsr_budget_largest_rank(&budget, ranks);
        tsr_rank_budget most = tsr_budget_of_rank(&budget, &setting, largest);
        assert_int_equal(0, largest);
        assert_int_equal(tsr_rank_budget_total(&most), tsr_budget_need(&budget, &setting));
    }
    tsr_budget_close(&budget);
    tsr_precision_close(precision);
    tsr_problems_close(&problems);
    made_close(made);
}

static void a_plan_never_counts_more_than_the_memory(void **state)
{
    (void)state;
    for (uint64_t mib = 4; mib <= 64; mib += 3) {
        tsr_plan_request request = {
            .ranks = 2, .target = tsr_target_find("cpu"), .memory_bytes = mib << 20};
        built b = build(&request);
        ASSERT_STATUS(TSR_OK, b.status);
        assert_true(b.fits == (total(b.plan, 0) <= mib << 20));
        assert_true(b.fits == (b.problems.errors == 0));
        close_built(&b);
    }
}

/* Whoever knows how many positions there will be gets them, no more, and on a host beyond its small
 * pool; a full sequence in any case. */
static void positions_that_are_known_are_what_is_planned(void **state)
{
    tsr_plan_request request = {.ranks = 1,
                                .target = tsr_target_find("cpu"),
                                .memory_bytes = UINT64_C(16) << 30,
                                .max_model_len = 512,
                                .max_num_seqs = 4096};
    (void)state;
    built b = build(&request);
    const int64_t pool = (int64_t)b.plan->limits.kv_blocks * b.plan->limits.kv_block_tokens;
    assert_true(b.fits && pool < (int64_t)512 * 4096);
    close_built(&b);

    const int64_t asked[] = {2 * pool, 1000, 1};
    const int64_t planned[] = {2 * pool, 1008, 512};
    for (size_t i = 0; i < 3; i++) {
        request.kv_positions = asked[i];
        b = build(&request);
        assert_true(b.fits);
        assert_int_equal((int64_t)b.plan->limits.kv_blocks * b.plan->limits.kv_block_tokens,
                         planned[i]);
        close_built(&b);
    }
}

/* A host reads through memory of its own, before it uses any for keys and values: the larger
 * counts. A GPU's memory holds none of it. */
static void loading_and_running_take_turns(void **state)
{
    tsr_plan_request request = {.ranks = 2,
                                .target = tsr_target_find("cpu"),
                                .memory_bytes = UINT64_C(1) << 30,
                                .max_model_len = 16,
                                .max_num_seqs = 1,
                                .max_batched_tokens = 16};
    (void)state;
    built b = build(&request);
    const tsr_rank_budget *r = &b.plan->budget[0];
    const uint64_t running = r->kv_bytes + r->workspace_bytes + r->buffers_bytes;
    const uint64_t fewest = r->weights_bytes + r->loading_bytes;
    assert_true(r->loading_bytes > TSR_LOAD_SCRATCH_BYTES && r->loading_bytes > running);
    assert_int_equal(total(b.plan, 0), fewest);
    close_built(&b);

    request.memory_bytes = fewest;
    b = build(&request);
    assert_true(b.fits);
    close_built(&b);
    request.memory_bytes = fewest - 1;
    b = build(&request);
    assert_false(b.fits);
    close_built(&b);

    request.memory_bytes = UINT64_C(1) << 33;
    request.target = tsr_target_find("h200");
    b = build(&request);
    assert_int_equal(0, b.plan->budget[0].loading_bytes);
    close_built(&b);
}

/* A tensor longer than a piece is cut, at most into twice as many as would be full; the ring does
 * not grow with it. */
static void a_long_tensor_takes_records_and_no_ring(void **state)
{
    const uint64_t piece = TSR_LOAD_PIECE_BYTES;
    tsr_load_count count = {0};
    tsr_tensor_place place = {.offset = 100, .bytes = piece};
    (void)state;
    tsr_load_count_add(&count, &place);
    const uint64_t short_bytes = tsr_load_bytes(&count);
    assert_true(short_bytes >= TSR_LOAD_SLOTS * piece + TSR_LOAD_SCRATCH_BYTES);
    place.bytes = 40 * piece;
    tsr_load_count_add(&count, &place);
    assert_int_equal(tsr_load_bytes(&count) - short_bytes, 81 * TSR_LOAD_PIECE_RECORD_BYTES);
    place.file = TSR_NO_FILE;
    tsr_load_count_add(&count, &place);
    assert_int_equal(tsr_load_bytes(&count) - short_bytes, 81 * TSR_LOAD_PIECE_RECORD_BYTES);
}

/* Boards with the same kernels differ in their memory alone. */
static void an_h100_is_an_h200_with_less_memory(void **state)
{
    tsr_plan_request request = {
        .ranks = 2, .target = tsr_target_find("h100"), .memory_bytes = UINT64_C(1) << 33};
    (void)state;
    assert_int_equal(UINT64_C(72000000000), request.target->memory_bytes);
    built small = build(&request);
    request.target = tsr_target_find("h200");
    built large = build(&request);
    assert_memory_equal(small.plan->budget, large.plan->budget, 2 * sizeof(*large.plan->budget));
    assert_memory_equal(&small.plan->limits, &large.plan->limits, sizeof(large.plan->limits));
    close_built(&small);
    close_built(&large);
}

/* The setting behind an option in the advice, 0 when it is not offered. */
static int32_t offered(const tsr_problems *problems, const char *option)
{
    for (size_t i = 0; i < problems->count; i++) {
        const char *at = strstr(problems->items[i].text, "would fit with");
        at = at != NULL ? strstr(at, option) : NULL;
        if (at != NULL)
            return (int32_t)strtol(at + strlen(option), NULL, 10);
    }
    return 0;
}

/* Each setting that is offered makes it fit; a block more, or a rank fewer, does not. */
static void what_is_advised_makes_it_fit(void **state)
{
    tsr_plan_request request = {.ranks = 1,
                                .target = tsr_target_find("cpu"),
                                .memory_bytes = UINT64_C(1) << 30,
                                .max_model_len = 512,
                                .max_num_seqs = 1,
                                .max_batched_tokens = 2048}; /* more than loading takes */
    tsr_plan_request changed = request;
    changed.exchange_tokens = 16; /* what is chosen where memory is short */
    built b = build(&changed);
    int32_t length, tokens;
    (void)state;
    assert_true(b.fits);
    request.memory_bytes = total(b.plan, 0) - 100000; /* less than the keys and values */
    changed = request;
    close_built(&b);

    b = build(&request);
    length = offered(&b.problems, "--max-model-len ");
    tokens = offered(&b.problems, "--max-num-batched-tokens ");
    ASSERT_STATUS(TSR_OK, b.status);
    assert_false(b.fits);
    assert_problem(&b.problems, TSR_SEVERITY_ERROR, "does not fit: rank 0 needs", "too little");
    close_built(&b);

    assert_true(length > 0);
    changed.max_model_len = length;
    b = build(&changed);
    assert_true(b.fits);
    close_built(&b);
    changed.max_model_len = length + 16;
    b = build(&changed);
    assert_false(b.fits);
    close_built(&b);

    assert_true(tokens > 0);
    changed = request;
    changed.max_batched_tokens = tokens;
    b = build(&changed);
    assert_true(b.fits);
    close_built(&b);
}

/* Ranks help where each brings its own memory, and are called what the command calls them. */
static void ranks_that_share_a_machine_are_not_advised(void **state)
{
    tsr_plan_request request = {.ranks = 1,
                                .target = tsr_target_find("cpu"),
                                .memory_bytes = UINT64_C(1) << 30,
                                .max_model_len = 16,
                                .max_num_seqs = 1,
                                .max_batched_tokens = 16};
    built b = build(&request);
    (void)state;
    assert_true(b.fits);
    request.memory_bytes = total(b.plan, 0) - 1000;
    close_built(&b);

    b = build(&request);
    assert_false(b.fits);
    assert_int_equal(offered(&b.problems, "--ranks "), 2);
    close_built(&b);
    request.ranks_option = "mpirun -n";
    b = build(&request);
    assert_int_equal(offered(&b.problems, "mpirun -n "), 2);
    close_built(&b);
    request.memory_is_shared = true;
    b = build(&request);
    assert_false(b.fits);
    assert_int_equal(offered(&b.problems, "mpirun -n "), 0);
    close_built(&b);
}

/* With next to no memory beyond the weights no setting helps alone, but all together do. (A host
 * that can load has more than that.) */
static void settings_that_help_only_together_are_advised_together(void **state)
{
    tsr_plan_request request = {
        .ranks = 1, .target = tsr_target_find("h200"), .memory_bytes = UINT64_C(1) << 33};
    request.max_num_seqs = 1;
    tsr_plan_request small = request;
    small.max_model_len = 32;
    small.max_batched_tokens = 16;
    small.exchange_tokens = 16;
    small.kv_cache_dtype = "fp8";
    (void)state;
    built b = build(&small);
    assert_true(b.fits);
    request.memory_bytes = total(b.plan, 0);
    close_built(&b);

    b = build(&request);
    assert_false(b.fits);
    assert_problem(&b.problems, TSR_SEVERITY_ERROR, "--kv-cache-dtype fp8 together", NULL);
    request.ranks = offered(&b.problems, "--ranks ");
    request.max_model_len = offered(&b.problems, "--max-model-len ");
    request.max_batched_tokens = offered(&b.problems, "--max-num-batched-tokens ");
    request.kv_cache_dtype = "fp8";
    close_built(&b);

    b = build(&request);
    assert_true(b.fits);
    close_built(&b);
}

/* The bytes of rank 0 with an exchange of so many tokens, and what is chosen where none is asked
 * for. */
static uint64_t bytes_with(tsr_plan_request request, int32_t exchange, int32_t *ret_chosen)
{
    request.exchange_tokens = exchange;
    built b = build(&request);
    ASSERT_STATUS(TSR_OK, b.status);
    const uint64_t bytes = total(b.plan, 0);
    if (ret_chosen != NULL)
        *ret_chosen = b.plan->limits.exchange_tokens;
    close_built(&b);
    return bytes;
}

/* All tokens of a step go at once, or the largest half, quarter ... of them whose rows and
 * workspace take an eighth of what weights, a step and one sequence leave. */
static void an_exchange_takes_as_few_rounds_as_memory_allows(void **state)
{
    static const char *const targets[] = {"cpu", "h200"};
    (void)state;
    for (int c = 0; c < 8; c++) {
        tsr_plan_request request = {.ranks = 1 + c % 4,
                                    .target = tsr_target_find(targets[c / 4]),
                                    .memory_bytes = UINT64_C(1) << 40,
                                    .max_model_len = 512,
                                    .max_num_seqs = 1,
                                    .max_batched_tokens = 1001};
        bool few = false, one = false;
        const uint64_t fixed = bytes_with(request, 16, NULL);
        for (uint64_t more = 1 << 14; more < UINT64_C(1) << 31; more += more / 3) {
            int32_t chosen, rounds = 1;
            request.memory_bytes = fixed + more;
            (void)bytes_with(request, 0, &chosen);
            while ((1001 + rounds - 1) / rounds > chosen)
                rounds *= 2;
            assert_int_equal(chosen, chosen == 16 ? 16 : (1001 + rounds - 1) / rounds);
            assert_true(bytes_with(request, chosen, NULL) - fixed <= more / 8);
            if (rounds > 1)
                assert_true(bytes_with(request, (1001 + rounds / 2 - 1) / (rounds / 2), NULL) -
                                fixed >
                            more / 8);
            few = few || (chosen > 16 && chosen < 1001);
            one = one || chosen == 1001;
        }
        assert_true(few && one);
    }
}

/* On four ranks, with 512 slots: 2^31 pairs are one too many for 2^20 tokens. */
static void indices_of_an_exchange_have_31_bits(void **state)
{
    tsr_model_facts model = made_model();
    made_checkpoint *made = made_open(&model, stored_nvfp4_experts);
    tsr_problems problems = {0};
    tsr_precision *precision;
    tsr_budget budget;
    tsr_setting setting = {.kv_format = TSR_KV_BF16, .ranks = 4};
    bool fits;
    (void)state;
    made_keys_as_stored(made);
    ASSERT_STATUS(TSR_OK, tsr_precision_read(made_view(made), &problems, &precision));
    const tsr_plan_request request = {.ranks = 4,
                                      .target = tsr_target_find("h200"),
                                      .memory_bytes = UINT64_C(1) << 60,
                                      .max_batched_tokens = 1 << 24};
    model.top_k = 512;
    ASSERT_STATUS(TSR_OK, tsr_budget_open(&model, precision, &request, &budget));
    ASSERT_STATUS(TSR_OK, tsr_limits_choose(&budget, &request, &problems, &setting, &fits));
    assert_int_equal(1 << 19, setting.limits.exchange_tokens);
    tsr_budget_close(&budget);
    tsr_precision_close(precision);
    tsr_problems_close(&problems);
    made_close(made);
}

static void requests_out_of_range_are_refused(void **state)
{
    static const struct {
        tsr_plan_request request;
        const char *says;
    } cases[] = {
        {{.ranks = 0}, "0 ranks"},
        {{.ranks = 5}, "more than the model's 4 experts"},
        {{.ranks = 1, .max_model_len = 513}, "the model has 512 positions"},
        {{.ranks = 1, .max_num_seqs = INT32_MAX}, "beyond"},
        {{.ranks = 4, .max_batched_tokens = 1 << 24, .exchange_tokens = 1 << 24}, NULL},
        {{.ranks = 1, .kv_cache_dtype = "int4"},
         "--kv-cache-dtype int4: cpu takes auto, f32, bf16 or fp8"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        tsr_plan_request request = cases[i].request;
        built b;
        request.target = tsr_target_find("cpu");
        request.memory_bytes = UINT64_C(1) << 30;
        b = build(&request);
        if (cases[i].says != NULL) {
            ASSERT_STATUS(TSR_ERR_ARG, b.status);
            assert_problem(&b.problems, TSR_SEVERITY_ERROR, cases[i].says, NULL);
        } else {
            assert_false(b.fits);
        }
        close_built(&b);
    }
}

static void the_folder_of_a_plan_is_absolute(void **state)
{
    tsr_plan_request request = {
        .ranks = 1, .target = tsr_target_find("cpu"), .memory_bytes = UINT64_C(1) << 30};
    built b = build(&request);
    (void)state;
    assert_int_equal('/', b.plan->folder[0]);
    close_built(&b);
}

static void amounts_are_written_for_people(void **state)
{
    char text[TSR_BYTE_COUNT_BYTES];
    (void)state;
    assert_string_equal("1023 B", tsr_byte_count_text(1023, text));
    assert_string_equal("1.00 KiB", tsr_byte_count_text(1024, text));
    assert_string_equal("118.2 GiB", tsr_byte_count_text(UINT64_C(126900000000), text));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_expert_of_a_released_model_takes_the_published_bytes),
        cmocka_unit_test(bf16_keys_and_values_of_a_token_take_the_published_bytes),
        cmocka_unit_test(experts_are_consecutive_and_even_on_any_number_of_ranks),
        cmocka_unit_test(eight_experts_on_three_and_five_ranks),
        cmocka_unit_test(weights_of_all_ranks_add_up),
        cmocka_unit_test(the_largest_rank_decides),
        cmocka_unit_test(a_plan_never_counts_more_than_the_memory),
        cmocka_unit_test(an_h100_is_an_h200_with_less_memory),
        cmocka_unit_test(positions_that_are_known_are_what_is_planned),
        cmocka_unit_test(loading_and_running_take_turns),
        cmocka_unit_test(a_long_tensor_takes_records_and_no_ring),
        cmocka_unit_test(what_is_advised_makes_it_fit),
        cmocka_unit_test(ranks_that_share_a_machine_are_not_advised),
        cmocka_unit_test(settings_that_help_only_together_are_advised_together),
        cmocka_unit_test(an_exchange_takes_as_few_rounds_as_memory_allows),
        cmocka_unit_test(indices_of_an_exchange_have_31_bits),
        cmocka_unit_test(requests_out_of_range_are_refused),
        cmocka_unit_test(the_folder_of_a_plan_is_absolute),
        cmocka_unit_test(amounts_are_written_for_people),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
