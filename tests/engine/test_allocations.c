/*
 * Once requests run, a step takes no memory: not on rank 0, not on the others, not in the model, the
 * kernels or comm. The linker puts the counters below in front of what our objects call.
 */
#include "tests/test.h"

#include "tests/engine/engine_run.h"

#include <stdatomic.h>
#include <stdlib.h>

enum { REQUESTS = 5, PROMPT = 6, OUTPUTS = 50, FIRST = 3, LAST = OUTPUTS - 1 };

static atomic_int taken;
static int taken_at_first;
static int taken_at_last;

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *memory, size_t bytes);
void *__real_aligned_alloc(size_t alignment, size_t bytes);
int __real_posix_memalign(void **ret_memory, size_t alignment, size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *memory, size_t bytes);
void *__wrap_aligned_alloc(size_t alignment, size_t bytes);
int __wrap_posix_memalign(void **ret_memory, size_t alignment, size_t bytes);

void *__wrap_malloc(size_t bytes)
{
    taken++;
    return __real_malloc(bytes);
}

void *__wrap_calloc(size_t count, size_t bytes)
{
    taken++;
    return __real_calloc(count, bytes);
}

void *__wrap_realloc(void *memory, size_t bytes)
{
    taken++;
    return __real_realloc(memory, bytes);
}

void *__wrap_aligned_alloc(size_t alignment, size_t bytes)
{
    taken++;
    return __real_aligned_alloc(alignment, bytes);
}

int __wrap_posix_memalign(void **ret_memory, size_t alignment, size_t bytes)
{
    taken++;
    return __real_posix_memalign(ret_memory, alignment, bytes);
}

/* Every step gives each request one token. */
static void look(int32_t outputs)
{
    if (outputs == FIRST * REQUESTS)
        taken_at_first = taken;
    if (outputs == LAST * REQUESTS)
        taken_at_last = taken;
}

static void steps_that_go_on_take_no_memory(void **state)
{
    (void)state;
    static const int32_t ranks[] = {1, 3};
    int32_t prompt[PROMPT] = {5, 17, 301, 44, 9, 120};
    tsr_request requests[REQUESTS];
    for (int32_t i = 0; i < REQUESTS; i++)
        requests[i] = (tsr_request){.id = (uint64_t)i,
                                    .prompt = prompt,
                                    .prompt_tokens = PROMPT,
                                    .max_tokens = OUTPUTS,
                                    .temperature = (float)(i % 2),
                                    .top_p = 0.9F,
                                    .top_k = i,
                                    .ignore_eos = true};

    for (size_t r = 0; r < sizeof(ranks) / sizeof(ranks[0]); r++) {
        const run_setup setup = {
            .ranks = ranks[r], .threads = 2, .block_tokens = 4, .each_output = look};
        run_result result;
        engine_run(&setup, requests, REQUESTS, &result);
        engine_run_ended(&setup, &result, TSR_OK);
        engine_run_close(&result);
        assert_true(taken_at_first > 0); /* the counters do count */
        assert_int_equal(taken_at_last, taken_at_first);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_that_go_on_take_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
