#include "runtime/plan/tensor_index.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Vision-language releases put their own words around the language model's names. */
static const char *const trunks[] = {"model.", "language_model.model.", "model.language_model.",
                                     "language_model.", ""};

tsr_status tsr_tensor_index_open(const tsr_checkpoint *checkpoint, tsr_tensor_index *index)
{
    char name[TSR_TENSOR_NAME_BYTES];

    *index = (tsr_tensor_index){.checkpoint = checkpoint, .trunk = trunks[0], .top = ""};
    index->consumed = calloc(checkpoint->tensor_count + 1, 1);
    if (index->consumed == NULL)
        return TSR_ERR_MEMORY;
    for (size_t i = 0; i < sizeof(trunks) / sizeof(trunks[0]); i++) {
        (void)snprintf(name, sizeof(name), "%sembed_tokens.weight", trunks[i]);
        if (tsr_checkpoint_find(checkpoint, name) != NULL) {
            index->trunk = trunks[i];
            break;
        }
    }
    if (tsr_checkpoint_find(checkpoint, "lm_head.weight") == NULL &&
        tsr_checkpoint_find(checkpoint, "language_model.lm_head.weight") != NULL)
        index->top = "language_model.";
    return TSR_OK;
}

void tsr_tensor_index_spell(const tsr_tensor_index *index, const char *canonical,
                            char ret_name[TSR_TENSOR_NAME_BYTES])
{
    size_t model = strlen("model.");

    if (strncmp(canonical, "model.", model) == 0)
        (void)snprintf(ret_name, TSR_TENSOR_NAME_BYTES, "%s%s", index->trunk, canonical + model);
    else
        (void)snprintf(ret_name, TSR_TENSOR_NAME_BYTES, "%s%s", index->top, canonical);
}

size_t tsr_tensor_index_module(const tsr_tensor_index *index, const char *canonical,
                               size_t *ret_count)
{
    const tsr_checkpoint *c = index->checkpoint;
    char prefix[TSR_TENSOR_NAME_BYTES + 1];
    size_t low = 0, high = c->tensor_count, bytes, end;

    tsr_tensor_index_spell(index, canonical, prefix);
    bytes = strlen(prefix);
    prefix[bytes++] = '.';
    prefix[bytes] = '\0';
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(c->tensors[middle].name, prefix) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    for (end = low; end < c->tensor_count && strncmp(c->tensors[end].name, prefix, bytes) == 0;)
        end++;
    *ret_count = end - low;
    return low;
}

const tsr_tensor *tsr_tensor_index_find(const tsr_tensor_index *index, const char *canonical)
{
    char name[TSR_TENSOR_NAME_BYTES];

    tsr_tensor_index_spell(index, canonical, name);
    return tsr_checkpoint_find(index->checkpoint, name);
}

void tsr_tensor_index_consume(tsr_tensor_index *index, const tsr_tensor *tensor)
{
    if (tensor != NULL)
        index->consumed[tensor - index->checkpoint->tensors] = 1;
}

void tsr_tensor_index_close(tsr_tensor_index *index)
{
    free(index->consumed);
    index->consumed = NULL;
}
