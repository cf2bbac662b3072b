/* What is wrong with a file is said in one line that names the tensor, by the rank that reads it;
 * nobody waits for a rank that has given up. */
#include "tests/model/safetensors_edit.h"
#include "tests/model/served.h"
#include "tests/test.h"

#include "runtime/base/log.h"

#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LINE_BYTES = 1024 };

/* The errors that were logged. */
static struct {
    pthread_mutex_t lock;
    int count;
    char last[LINE_BYTES];
} said = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void keep_errors(void *context, tsr_log_level level, const char *line)
{
    (void)context;
    if (level != TSR_LOG_ERROR)
        return;
    (void)pthread_mutex_lock(&said.lock);
    said.count++;
    (void)snprintf(said.last, sizeof(said.last), "%s", line);
    (void)pthread_mutex_unlock(&said.lock);
}

static int listen_to_errors(void **state)
{
    (void)state;
    said.count = 0;
    tsr_log_set_sink(keep_errors, NULL);
    return 0;
}

static int stop_listening(void **state)
{
    (void)state;
    tsr_log_set_sink(NULL, NULL);
    return 0;
}

static void said_once(const char *tensor, const char *what)
{
    if (said.count != 1 || strstr(said.last, tensor) == NULL || strstr(said.last, what) == NULL)
        fail_msg("%d errors, the last: %s", said.count, said.last);
}

/* A copy of a folder of tests/data on its way to being damaged. */
typedef struct patient {
    char folder[PATH_MAX];
    char weights[PATH_MAX];
    edit_list tensors;
} patient;

static patient copy_of(const char *fixture)
{
    patient p;
    char original[PATH_MAX];
    edit_path(TSR_TEST_DATA, fixture, sizeof(original), original);
    edit_copy_folder(original, sizeof(p.folder), p.folder);
    edit_path(p.folder, "model.safetensors", sizeof(p.weights), p.weights);
    p.tensors = edit_read(p.weights);
    return p;
}

static void forget(patient *p)
{
    edit_close(&p->tensors);
    edit_remove_folder(p->folder);
}

static tsr_plan *plan_of(const patient *p, int32_t ranks)
{
    tsr_plan *plan = NULL;
    served_setup setup = {.folder = p->folder, .mode = SERVED_DECLARED, .ranks = ranks};
    ASSERT_STATUS(TSR_OK, served_plan(&setup, &plan));
    return plan;
}

static tsr_status open_on(const tsr_plan *plan, tsr_status *ret_of_rank)
{
    static const int32_t token[] = {1};
    served_sequence s = {.tokens = token, .count = 1};
    const tsr_status st = served_run(plan, (served_device){0}, &s, 1, ret_of_rank);
    served_free(&s, 1);
    return st;
}

static void set_float(const patient *p, const char *name, float value)
{
    edit_tensor *t = edit_find(&p->tensors, name);
    assert_string_equal(t->dtype, "F32");
    memcpy(t->data + t->bytes - sizeof(value), &value, sizeof(value));
}

/* Writes the damaged tensors and loads them on one rank. */
static void refuses(patient *p, const char *tensor, const char *what)
{
    edit_write(p->weights, &p->tensors, 0);
    tsr_plan *plan = plan_of(p, 1);
    ASSERT_STATUS(TSR_ERR_CHECKPOINT, open_on(plan, NULL));
    said_once(tensor, what);
    assert_non_null(strstr(said.last, "model.safetensors"));
    tsr_plan_close(plan);
    forget(p);
}

static void a_file_cut_short_after_planning_is_not_read(void **state)
{
    (void)state;
    patient p = copy_of("qwen3-mixed");
    tsr_plan *plan = plan_of(&p, 1);
    FILE *file = fopen(p.weights, "rb");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    const long bytes = ftell(file);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(truncate(p.weights, bytes - 1), 0);

    ASSERT_STATUS(TSR_ERR_CHECKPOINT, open_on(plan, NULL));
    said_once("model.safetensors", "that was planned with");
    tsr_plan_close(plan);
    forget(&p);
}

/* As on a rank whose own copy of the checkpoint is another revision. */
static void a_file_of_the_same_size_with_another_header_is_not_read(void **state)
{
    (void)state;
    patient p = copy_of("qwen3-bf16");
    edit_write(p.weights, &p.tensors, 0);
    tsr_plan *plan = plan_of(&p, 1);
    edit_tensor *gate = edit_find(&p.tensors, "model.layers.1.mlp.experts.1.gate_proj.weight");
    edit_tensor *up = edit_find(&p.tensors, "model.layers.1.mlp.experts.1.up_proj.weight");
    const edit_tensor first = *gate;
    *gate = *up;
    *up = first;
    edit_write(p.weights, &p.tensors, 0);

    ASSERT_STATUS(TSR_ERR_CHECKPOINT, open_on(plan, NULL));
    said_once("model.safetensors", "is not the one that was planned with");
    tsr_plan_close(plan);
    forget(&p);
}

static void a_file_gone_after_planning_is_named(void **state)
{
    (void)state;
    patient p = copy_of("qwen3-bf16");
    tsr_plan *plan = plan_of(&p, 2);
    assert_int_equal(unlink(p.weights), 0);
    ASSERT_STATUS(TSR_ERR_CHECKPOINT, open_on(plan, NULL));
    assert_true(said.count >= 1); /* either rank, or both */
    assert_non_null(strstr(said.last, "model.safetensors"));
    assert_non_null(strstr(said.last, "No such file"));
    tsr_plan_close(plan);
    forget(&p);
}

static void a_nan_block_scale_is_refused(void **state)
{
    (void)state;
    const char *name = "model.layers.1.mlp.experts.2.up_proj.weight_scale";
    patient p = copy_of("qwen3-nvfp4");
    edit_find(&p.tensors, name)->data[5] = 0x7f;
    refuses(&p, name, "element 5 is nan");
}

static void a_negative_block_scale_is_refused(void **state)
{
    (void)state;
    const char *name = "model.layers.1.mlp.experts.2.up_proj.weight_scale";
    patient p = copy_of("qwen3-nvfp4");
    edit_find(&p.tensors, name)->data[0] |= 0x80;
    refuses(&p, name, "element 0 is -");
}

static void a_zero_block_scale_is_served(void **state)
{
    (void)state;
    patient p = copy_of("qwen3-nvfp4");
    unsigned char *scales =
        edit_find(&p.tensors, "model.layers.1.self_attn.q_proj.weight_scale")->data;
    scales[0] = 0;
    scales[1] = 0x80; /* the other zero */
    edit_write(p.weights, &p.tensors, 0);
    tsr_plan *plan = plan_of(&p, 1);
    ASSERT_STATUS(TSR_OK, open_on(plan, NULL));
    assert_int_equal(said.count, 0);
    tsr_plan_close(plan);
    forget(&p);
}

static void impossible_scales_of_whole_tensors_are_refused(void **state)
{
    (void)state;
    static const char *const names[] = {
        "model.layers.0.self_attn.q_proj.weight_scale_2",
        "model.layers.0.self_attn.q_proj.input_scale",
        "model.layers.0.mlp.experts.7.down_proj.weight_scale_2",
    };
    const float values[] = {0.0F, -1.0F, 1.0F / 0.0F};
    for (int i = 0; i < 3; i++) {
        said.count = 0;
        patient p = copy_of("qwen3-nvfp4");
        set_float(&p, names[i], values[i]);
        refuses(&p, names[i], "which cannot be");
    }
}

static void an_unread_input_scale_does_no_harm(void **state)
{
    (void)state;
    patient p = copy_of("qwen3-nvfp4");
    set_float(&p, "model.layers.0.self_attn.q_proj.input_scale", 0.0F);
    edit_write(p.weights, &p.tensors, 0);
    tsr_plan *plan = NULL;
    served_setup setup = {.folder = p.folder, .mode = SERVED_WEIGHT_ONLY};
    ASSERT_STATUS(TSR_OK, served_plan(&setup, &plan));
    ASSERT_STATUS(TSR_OK, open_on(plan, NULL));
    tsr_plan_close(plan);
    forget(&p);
}

static void an_infinite_channel_scale_is_refused(void **state)
{
    (void)state;
    const char *name = "model.layers.2.self_attn.o_proj.weight_scale";
    patient p = copy_of("qwen3-fp8-pc-pt");
    set_float(&p, name, 1.0F / 0.0F);
    refuses(&p, name, "element 127 is inf");
}

static void a_nan_fp8_weight_is_refused(void **state)
{
    (void)state;
    const char *name = "model.layers.3.mlp.experts.0.down_proj.weight";
    patient p = copy_of("qwen3-fp8");
    edit_find(&p.tensors, name)->data[17] = 0xff;
    refuses(&p, name, "NaN");
}

static void a_nan_norm_is_refused(void **state)
{
    (void)state;
    const char *name = "model.layers.1.post_attention_layernorm.weight";
    patient p = copy_of("qwen3-bf16");
    edit_tensor *t = edit_find(&p.tensors, name);
    t->data[0] = 0xff;
    t->data[1] = 0xff;
    refuses(&p, name, "element 0 is");
}

static void a_zero_kv_scale_is_refused(void **state)
{
    (void)state;
    const char *name = "model.layers.0.self_attn.v_proj.v_scale";
    patient p = copy_of("qwen3-nvfp4-kv-fp8");
    set_float(&p, name, 0.0F);
    refuses(&p, name, "element 0 is 0");
}

static void a_missing_tensor_is_refused_by_name(void **state)
{
    (void)state;
    const char *name = "model.layers.1.mlp.experts.3.up_proj.weight";
    patient p = copy_of("glm4-bf16");
    edit_remove(&p.tensors, name);
    edit_write(p.weights, &p.tensors, 0);
    tsr_plan *plan = NULL;
    served_setup setup = {.folder = p.folder, .mode = SERVED_DECLARED};
    ASSERT_STATUS(TSR_ERR_CHECKPOINT, served_plan(&setup, &plan));
    said_once(name, name);
    forget(&p);
}

/* Expert 7 of 8 lies on the last of 3 ranks: only that one reads it. */
static void one_rank_that_cannot_load_ends_all(void **state)
{
    (void)state;
    const char *name = "model.layers.3.mlp.experts.7.down_proj.weight";
    patient p = copy_of("qwen3-fp8");
    edit_find(&p.tensors, name)->data[0] = 0x7f;
    edit_write(p.weights, &p.tensors, 0);
    tsr_plan *plan = plan_of(&p, 3);
    const int32_t owner = plan->expert_rank[3 * 8 + 7];

    tsr_status of_rank[3];
    ASSERT_STATUS(TSR_ERR_CHECKPOINT, open_on(plan, of_rank));
    said_once(name, "NaN");
    for (int32_t r = 0; r < 3; r++)
        ASSERT_STATUS(r == owner ? TSR_ERR_CHECKPOINT : TSR_ERR_PEER, of_rank[r]);
    tsr_plan_close(plan);
    forget(&p);
}

static void a_token_beyond_the_vocabulary_ends_all_ranks(void **state)
{
    (void)state;
    static const int32_t good[] = {1, 2, 3};
    static const int32_t bad[] = {1, 512};
    patient p = copy_of("qwen3-bf16");
    tsr_plan *plan = plan_of(&p, 2);
    served_sequence sequences[2] = {{.tokens = good, .count = 3},
                                    {.tokens = bad, .count = 2, .rank = 1}};
    tsr_status of_rank[2];
    ASSERT_STATUS(TSR_ERR_ARG, served_run(plan, (served_device){0}, sequences, 2, of_rank));
    ASSERT_STATUS(TSR_ERR_PEER, of_rank[0]);
    said_once("token", "512");
    served_free(sequences, 2);
    tsr_plan_close(plan);
    forget(&p);
}

#define HEARD(test) cmocka_unit_test_setup_teardown(test, listen_to_errors, stop_listening)

int main(void)
{
    const struct CMUnitTest tests[] = {
        HEARD(a_file_cut_short_after_planning_is_not_read),
        HEARD(a_file_of_the_same_size_with_another_header_is_not_read),
        HEARD(a_file_gone_after_planning_is_named),
        HEARD(a_nan_block_scale_is_refused),
        HEARD(a_negative_block_scale_is_refused),
        HEARD(a_zero_block_scale_is_served),
        HEARD(impossible_scales_of_whole_tensors_are_refused),
        HEARD(an_unread_input_scale_does_no_harm),
        HEARD(an_infinite_channel_scale_is_refused),
        HEARD(a_nan_fp8_weight_is_refused),
        HEARD(a_nan_norm_is_refused),
        HEARD(a_zero_kv_scale_is_refused),
        HEARD(a_missing_tensor_is_refused_by_name),
        HEARD(one_rank_that_cannot_load_ends_all),
        HEARD(a_token_beyond_the_vocabulary_ends_all_ranks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
