/*
 * A request as it reaches the rank that will own its sequence: prompt tokens and how to sample.
 * Carried by protobuf-c behind a step (several, each with a length in front); admission_wire.c is
 * the only file that knows.
 */
#ifndef TSR_PROTO_ADMISSION_H
#define TSR_PROTO_ADMISSION_H

#include "runtime/base/status.h"
#include "runtime/base/token_rules.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct tsr_admission {
    uint32_t rank;
    uint32_t slot;
    uint64_t seed;
    float temperature;
    float top_p;
    float min_p;
    int32_t top_k;
    uint32_t token_count;
    const int32_t *tokens; /* [token_count] prompt, then replayed tokens of a request that runs
                              again */
    const tsr_token_rules *rules; /* NULL: none */
} tsr_admission;

/* More than any admission of so many tokens and so many bytes of rules takes. */
size_t tsr_admission_max_bytes(uint32_t tokens, size_t rules_bytes);

/* Bytes that tsr_admission_pack will write. */
size_t tsr_admission_bytes(const tsr_admission *admission);

/* Writes one admission at `into`, which has tsr_admission_bytes bytes. */
void tsr_admission_pack(const tsr_admission *admission, unsigned char *into);

/* Reads the admissions of a step one after the other. Zero-initialise `at`. */
typedef struct tsr_admission_reader {
    const unsigned char *bytes;
    size_t count;
    size_t at;
    tsr_token_rules *rules; /* where those of an admission go; NULL: nowhere */
} tsr_admission_reader;

/*
 * The next admission: its tokens are copied into `tokens`, which has room for `capacity`, and
 * ret_admission->tokens points there. *ret_more is false when there was none.
 *
 * Ids are not negative, sampling is within its ranges, and rules hold for some vocabulary; whether
 * rank, slot and ids exist is for the caller to check, who knows how many there are.
 *
 * TSR_ERR_MISMATCH, logged: malformed or beyond the bounds
 */
TSR_MUST_USE tsr_status tsr_admission_next(tsr_admission_reader *reader, int32_t *tokens,
                                           uint32_t capacity, tsr_admission *ret_admission,
                                           bool *ret_more);

#endif
