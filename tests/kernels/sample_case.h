/* Rows of logits that a device samples from. */
#ifndef TSR_TESTS_KERNELS_SAMPLE_CASE_H
#define TSR_TESTS_KERNELS_SAMPLE_CASE_H

#include "tests/kernels/samples.h"

/* What is sampled from, on the host; row i is of logits i unless it says otherwise. */
typedef struct sample_case {
    const float *logits; /* [rows, vocab] */
    const tsr_sample_row *row;
    int32_t rows;
    int32_t samples;
    int32_t vocab;
    int32_t allowed;
    int32_t tops; /* of all rows */
    tsr_token_logprob *ret_top;
    const tsr_text_table *text;   /* on the host; NULL: none */
    const tsr_token_rules *rules; /* [text->slots]; NULL: none */
    const uint32_t *masks;        /* [mask_rows, tsr_mask_words(vocab)] */
    int32_t mask_rows;
} sample_case;

sample_case case_of(const float *logits, const tsr_sample_row *row, int32_t rows, int32_t samples,
                    int32_t vocab, int32_t allowed);

/* On a device, which finds no fault. */
void sample(tsr_device *device, const sample_case *c, tsr_sampled *ret);

tsr_sample_row row_of(uint64_t seed, uint64_t output_index, float temperature, float top_p,
                      int32_t top_k);

/* Rows of every kind at once. */
void fill_rows(sample_random *r, tsr_sample_row *row, int32_t rows);

/* The same token, and what the i-th device may make of its logprob. */
void assert_sampled(int i, const tsr_sampled *expected, const tsr_sampled *got);

#endif
