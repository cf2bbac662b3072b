/*
 * The header is written last. Rows come in any order, so that what a killed job leaves beside may
 * have its full length and holes of zeros in it; without a header no reader takes it for an answer.
 */
#include "launch/score/logits_file.h"

#include "launch/files/output_file.h"
#include "runtime/base/log.h"
#include "runtime/base/text_buffer.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 8, LENGTH_BYTES = 8, FAILED = -1 };

struct tsr_logits_file {
    const char *path; /* borrowed */
    const tsr_token_file *tokens;
    tsr_text header;       /* length included */
    uint64_t *first_byte;  /* [sequences] of logits.I in the file */
    uint64_t *name_byte;   /* [sequences] of the name logits.I in the header */
    int32_t *rows_written; /* [sequences] or FAILED */
    int32_t vocab;
    tsr_output_file *out;
};

/* The JSON header, padded so that the payload is aligned; first_byte is relative to the payload. */
static tsr_status add_json(tsr_logits_file *file)
{
    tsr_text *header = &file->header;
    tsr_status st = tsr_text_add_string(header, "{");
    uint64_t offset = 0;

    for (size_t i = 0; i < file->tokens->count && st == TSR_OK; i++) {
        const int32_t rows = file->tokens->sequences[i].count;
        const uint64_t bytes = (uint64_t)rows * (uint64_t)file->vocab * sizeof(float);
        const uint64_t end = offset + bytes;
        file->first_byte[i] = offset;
        file->name_byte[i] = header->count + strlen(i > 0 ? ",\"" : "\"");
        st = tsr_text_add_format(header,
                                 "%s\"logits.%zu\":{\"dtype\":\"F32\",\"shape\":[%d,%d],"
                                 "\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}",
                                 i > 0 ? "," : "", i, rows, file->vocab, offset, end);
        offset = end;
    }
    if (st == TSR_OK)
        st = tsr_text_add_string(header, "}");
    while (st == TSR_OK && header->count % ALIGNMENT != 0)
        st = tsr_text_add_string(header, " ");
    return st;
}

static tsr_status build_header(tsr_logits_file *file)
{
    char length[LENGTH_BYTES] = {0};
    tsr_status st = tsr_text_add(&file->header, length, sizeof(length));

    if (st == TSR_OK)
        st = add_json(file);
    if (st != TSR_OK)
        return st;
    const uint64_t bytes = file->header.count - LENGTH_BYTES;
    for (size_t i = 0; i < LENGTH_BYTES; i++)
        file->header.bytes[i] = (char)(unsigned char)(bytes >> (8 * i));
    for (size_t i = 0; i < file->tokens->count; i++)
        file->first_byte[i] += file->header.count;
    return TSR_OK;
}

tsr_status tsr_logits_file_open(const char *path, const tsr_token_file *tokens, int32_t vocab,
                                tsr_logits_file **ret_file)
{
    tsr_logits_file *file = calloc(1, sizeof(*file));
    if (file == NULL)
        return TSR_ERR_MEMORY;
    *file = (tsr_logits_file){.path = path, .tokens = tokens, .vocab = vocab};
    file->first_byte = calloc(tokens->count, sizeof(*file->first_byte));
    file->name_byte = calloc(tokens->count, sizeof(*file->name_byte));
    file->rows_written = calloc(tokens->count, sizeof(*file->rows_written));

    tsr_status st =
        file->first_byte != NULL && file->name_byte != NULL && file->rows_written != NULL
            ? TSR_OK
            : TSR_ERR_MEMORY;
    if (st == TSR_OK)
        st = build_header(file);
    const tsr_output_args args = {.option = "--out", .path = path, .places = true};
    if (st == TSR_OK)
        st = tsr_output_file_open(&args, &file->out);
    if (st == TSR_OK)
        *ret_file = file;
    else
        tsr_logits_file_close(file);
    return st;
}

tsr_status tsr_logits_file_write(tsr_logits_file *file, size_t sequence, int32_t first_row,
                                 int32_t rows, const float *logits)
{
    const size_t row_bytes = (size_t)file->vocab * sizeof(float);
    file->rows_written[sequence] += rows;
    return tsr_output_file_put(file->out,
                               file->first_byte[sequence] + (uint64_t)first_row * row_bytes, logits,
                               (size_t)rows * row_bytes);
}

void tsr_logits_file_fail(tsr_logits_file *file, size_t sequence)
{
    static const char name[] = "failed"; /* as long as the other */
    memcpy(file->header.bytes + file->name_byte[sequence], name, strlen(name));
    file->rows_written[sequence] = FAILED;
}

/* A last sequence that failed leaves the file too short. */
static tsr_status fill_up(const tsr_logits_file *file, size_t sequences)
{
    const size_t last = sequences - 1;
    if (file->rows_written[last] != FAILED)
        return TSR_OK;
    const uint64_t end = file->first_byte[last] + (uint64_t)file->tokens->sequences[last].count *
                                                      (uint64_t)file->vocab * sizeof(float);
    return tsr_output_file_put(file->out, end - 1, "", 1);
}

/* Ends the header behind the last sequence that is there, its length unchanged. */
static void cut_header(tsr_logits_file *file, size_t sequences)
{
    if (sequences == file->tokens->count)
        return;
    const size_t comma = file->name_byte[sequences] - strlen(",\"");
    memset(file->header.bytes + comma, ' ', file->header.count - comma);
    file->header.bytes[comma] = '}';
}

tsr_status tsr_logits_file_finish(tsr_logits_file *file, size_t sequences)
{
    tsr_status st = fill_up(file, sequences);

    for (size_t i = 0; i < sequences && st == TSR_OK; i++) {
        if (file->rows_written[i] != FAILED &&
            file->rows_written[i] != file->tokens->sequences[i].count) {
            tsr_log(TSR_LOG_ERROR, "--out %s: sequence %zu has %d of %d rows", file->path, i,
                    file->rows_written[i], file->tokens->sequences[i].count);
            st = TSR_ERR_OUTPUT;
        }
    }
    cut_header(file, sequences);
    if (st == TSR_OK)
        st = tsr_output_file_put(file->out, 0, file->header.bytes, file->header.count);
    return st == TSR_OK ? tsr_output_file_finish(file->out) : st;
}

void tsr_logits_file_close(tsr_logits_file *file)
{
    if (file == NULL)
        return;
    tsr_output_file_close(file->out);
    tsr_text_close(&file->header);
    free(file->rows_written);
    free(file->name_byte);
    free(file->first_byte);
    free(file);
}
