/*
 * Admissions as bytes:
 *
 *   | length 4 | protobuf message of admission.proto | length 4 | ...
 */
#include "proto/admission.h"

#include "proto/admission.pb-c.h"
#include "runtime/base/log.h"

#include <math.h>
#include <string.h>

/* Bytes in front of a message; of a message without its tokens, more than its fields can take; and
 * of one token, since an id is less than 2^31. */
enum { LENGTH_BYTES = 4, FIELDS_BYTES = 64, TOKEN_BYTES = 5 };

size_t tsr_admission_max_bytes(uint32_t tokens, size_t rules_bytes)
{
    return LENGTH_BYTES + FIELDS_BYTES + (size_t)TOKEN_BYTES * tokens + rules_bytes;
}

static Tessera__Admission message_of(const tsr_admission *admission)
{
    Tessera__Admission message = TESSERA__ADMISSION__INIT;

    message.rank = admission->rank;
    message.slot = admission->slot;
    message.seed = admission->seed;
    message.temperature = admission->temperature;
    message.top_p = admission->top_p;
    message.top_k = (uint32_t)admission->top_k;
    message.min_p = admission->min_p;
    if (admission->rules != NULL) {
        message.rules.len = tsr_rules_bytes(admission->rules);
        memcpy(&message.rules.data, &admission->rules, sizeof(message.rules.data));
    }
    message.n_tokens = admission->token_count;
    /* protobuf-c only reads a message it packs, but its pointers are not const. */
    memcpy(&message.tokens, &admission->tokens, sizeof(message.tokens));
    return message;
}

size_t tsr_admission_bytes(const tsr_admission *admission)
{
    const Tessera__Admission message = message_of(admission);
    return LENGTH_BYTES + tessera__admission__get_packed_size(&message);
}

void tsr_admission_pack(const tsr_admission *admission, unsigned char *into)
{
    const Tessera__Admission message = message_of(admission);
    const uint32_t length = (uint32_t)tessera__admission__pack(&message, into + LENGTH_BYTES);
    memcpy(into, &length, LENGTH_BYTES);
}

/* What is wrong with a message, as the end of a line; NULL when nothing is. */
static const char *wrong_with(const Tessera__Admission *message, uint32_t capacity)
{
    if (message->n_tokens == 0)
        return "it has no tokens";
    if (message->n_tokens > capacity)
        return "it has more tokens than a sequence may";
    if (!isfinite(message->temperature) || message->temperature < 0)
        return "its temperature is not a number from 0 up";
    if (!(message->top_p > 0 && message->top_p <= 1))
        return "its top_p is not within (0, 1]";
    if (message->top_k > INT32_MAX)
        return "its top_k is negative";
    if (!(message->min_p >= 0 && message->min_p <= 1))
        return "its min_p is not within [0, 1]";
    for (size_t i = 0; i < message->n_tokens; i++) {
        if (message->tokens[i] > INT32_MAX)
            return "it has a negative token id";
    }
    return NULL;
}

/* What is wrong with rules, NULL when nothing is. */
static const char *read_rules(const ProtobufCBinaryData *bytes, tsr_token_rules *ret_rules)
{
    if (bytes->len > sizeof(*ret_rules))
        return "its rules are longer than rules may be";
    memset(ret_rules, 0, sizeof(*ret_rules));
    memcpy(ret_rules, bytes->data, bytes->len);
    return tsr_rules_wrong(ret_rules, bytes->len, INT32_MAX);
}

static tsr_status malformed(const tsr_admission_reader *reader, const char *why)
{
    tsr_log(TSR_LOG_ERROR,
            "admission at byte %zu of %zu: %s; the ranks no longer agree, start the job again",
            reader->at, reader->count, why);
    return TSR_ERR_MISMATCH;
}

/* The message at reader->at and where it ends. */
static tsr_status unpack(const tsr_admission_reader *reader, Tessera__Admission **ret_message,
                         size_t *ret_end)
{
    const size_t left = reader->count - reader->at;
    uint32_t length;

    if (left < LENGTH_BYTES)
        return malformed(reader, "its length is cut off");
    memcpy(&length, reader->bytes + reader->at, LENGTH_BYTES);
    if (length > left - LENGTH_BYTES)
        return malformed(reader, "it is cut off");

    Tessera__Admission *message =
        tessera__admission__unpack(NULL, length, reader->bytes + reader->at + LENGTH_BYTES);
    if (message == NULL)
        return malformed(reader, "its bytes are not a message");
    *ret_message = message;
    *ret_end = reader->at + LENGTH_BYTES + length;
    return TSR_OK;
}

tsr_status tsr_admission_next(tsr_admission_reader *reader, int32_t *tokens, uint32_t capacity,
                              tsr_admission *ret_admission, bool *ret_more)
{
    Tessera__Admission *message = NULL;
    size_t end = 0;

    if (reader->at == reader->count) {
        *ret_more = false;
        return TSR_OK;
    }
    const tsr_status st = unpack(reader, &message, &end);
    if (st != TSR_OK)
        return st;

    tsr_token_rules rules;
    const char *wrong = wrong_with(message, capacity);
    if (wrong == NULL && message->rules.len > 0)
        wrong = read_rules(&message->rules, &rules);
    if (wrong != NULL) {
        tessera__admission__free_unpacked(message, NULL);
        return malformed(reader, wrong);
    }
    memcpy(tokens, message->tokens, message->n_tokens * sizeof(*tokens));
    *ret_admission = (tsr_admission){.rank = message->rank,
                                     .slot = message->slot,
                                     .seed = message->seed,
                                     .temperature = message->temperature,
                                     .top_p = message->top_p,
                                     .min_p = message->min_p,
                                     .top_k = (int32_t)message->top_k,
                                     .token_count = (uint32_t)message->n_tokens,
                                     .tokens = tokens};
    if (message->rules.len > 0 && reader->rules != NULL) {
        *reader->rules = rules;
        ret_admission->rules = reader->rules;
    }
    tessera__admission__free_unpacked(message, NULL);
    reader->at = end;
    *ret_more = true;
    return TSR_OK;
}
