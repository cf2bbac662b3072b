/* Length limits and padding of the file are for batches of training: transformers and servers take
 * neither when they encode one text. */
#include "runtime/text/tokenizer_fields.h"

#include "runtime/base/field_rows.h"

#include <stdint.h>

static const tsr_known_field file_rows[] = {
    READ("added_tokens"), READ("decoder"),        READ("model"),
    READ("normalizer"),   READ("post_processor"), READ("pre_tokenizer"),
    IGNORED("padding"),   IGNORED("truncation"),  IGNORED("version"),
};
static const tsr_field_table of_file = TABLE(file_rows);

static const tsr_known_field model_rows[] = {
    READ("byte_fallback"), READ("continuing_subword_prefix"),
    READ("dropout"),       READ("end_of_word_suffix"),
    READ("ignore_merges"), READ("merges"),
    READ("type"),          READ("unk_token"),
    READ("vocab"),         IGNORED("fuse_unk"), /* there is no unk_token */
};
static const tsr_field_table of_model = TABLE(model_rows);

static void warn(const char *path, const char *within, const json_t *object,
                 const tsr_field_table *table, tsr_problems *problems)
{
    const char *name = NULL;
    json_t *value = NULL;

    json_object_foreach((json_t *)(uintptr_t)object, name, value)
    {
        char shown[TSR_SHOWN_BYTES];
        if (tsr_field_judge(table, name, value) == TSR_FIELD_UNKNOWN)
            tsr_problems_add(problems, TSR_SEVERITY_WARNING,
                             "%s: %s%s: is not known and has no effect", path, within,
                             tsr_field_show_name(name, shown));
    }
}

void tsr_tokenizer_fields_warn(const char *path, const json_t *file, tsr_problems *problems)
{
    warn(path, "", file, &of_file, problems);
    warn(path, "model.", json_object_get(file, "model"), &of_model, problems);
}
