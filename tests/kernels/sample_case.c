/* Sampling by the small operation, on whichever device. */
#include "tests/kernels/sample_case.h"

#include "tests/test.h"

static const tsr_stream stream = {NULL};

sample_case case_of(const float *logits, const tsr_sample_row *row, int32_t rows, int32_t samples,
                    int32_t vocab, int32_t allowed)
{
    return (sample_case){.logits = logits,
                         .row = row,
                         .rows = rows,
                         .samples = samples,
                         .vocab = vocab,
                         .allowed = allowed};
}

void sample(tsr_device *device, const sample_case *c, tsr_sampled *ret)
{
    const size_t bytes = (size_t)c->samples * sizeof(*ret);
    const size_t logit_bytes = (size_t)c->rows * (size_t)c->vocab * sizeof(float);
    const size_t top_bytes = (size_t)c->tops * sizeof(*c->ret_top);
    tsr_text_table text = c->text != NULL ? *c->text : (tsr_text_table){0};

    if (c->text != NULL)
        text.ids = sample_put(device, text.ids,
                              (size_t)text.slots * (size_t)text.positions * sizeof(*text.ids));
    const tsr_sample_args a = {
        .sampled = sample_room(device, bytes),
        .top = sample_room(device, top_bytes),
        .tops = c->tops,
        .text = text,
        .rules = c->rules != NULL
                     ? sample_put(device, c->rules, (size_t)text.slots * sizeof(*c->rules))
                     : NULL,
        .masks = c->mask_rows > 0
                     ? sample_put(device, c->masks,
                                  (size_t)c->mask_rows * (size_t)tsr_mask_words(c->vocab) *
                                      sizeof(*c->masks))
                     : NULL,
        .mask_rows = c->mask_rows,
        .is_bent = c->rules != NULL || c->mask_rows > 0,
        .logits = sample_put(device, c->logits, logit_bytes),
        .row = sample_put(device, c->row, (size_t)c->samples * sizeof(*c->row)),
        .rows = c->rows,
        .samples = c->samples,
        .vocab = c->vocab,
        .allowed = c->allowed,
    };

    ASSERT_STATUS(TSR_OK, device->ops->sample(device, &a, stream));
    sample_get(device, ret, a.sampled, bytes); /* so that it has run */
    if (c->tops > 0)
        sample_get(device, c->ret_top, a.top, top_bytes);
    ASSERT_STATUS(TSR_OK, tsr_device_fault(device));
}

tsr_sample_row row_of(uint64_t seed, uint64_t output_index, float temperature, float top_p,
                      int32_t top_k)
{
    return (tsr_sample_row){
        .seed = seed,
        .output_index = output_index,
        .temperature = temperature,
        .top_p = top_p,
        .top_k = top_k,
    };
}

void fill_rows(sample_random *r, tsr_sample_row *row, int32_t rows)
{
    for (int32_t i = 0; i < rows; i++) {
        row[i] = (tsr_sample_row){
            .seed = sample_u32(r),
            .output_index = (uint64_t)i,
            .temperature = i % 4 == 0 ? 0.0F : 0.3F * (float)(i % 7 + 1),
            .top_p = i % 3 == 0 ? 1.0F : 0.2F * (float)(i % 5 + 1),
            .top_k = i % 2 == 0 ? 0 : i,
            .logit_row = i,
        };
    }
}

void assert_sampled(int i, const tsr_sampled *expected, const tsr_sampled *got)
{
    assert_int_equal(expected->token, got->token);
    sample_assert_like(i, &expected->logprob, &got->logprob, 1);
}
