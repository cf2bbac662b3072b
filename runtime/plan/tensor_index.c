/* Over the checkpoint's sorted list, where the tensors of a module stand together behind its name
 * and a dot: they are found by one search, and experts.1 does not find experts.10. */
#include "runtime/plan/tensor_index.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_BYTES = 192 };

tsr_status tsr_tensor_index_open(const tsr_checkpoint *checkpoint, tsr_tensor_index *index)
{
    *index = (tsr_tensor_index){.checkpoint = checkpoint};
    index->consumed = calloc(checkpoint->tensor_count + 1, 1);
    return index->consumed == NULL ? TSR_ERR_MEMORY : TSR_OK;
}

size_t tsr_tensor_index_module(const tsr_tensor_index *index, const char *module, size_t *ret_count)
{
    const tsr_checkpoint *c = index->checkpoint;
    char prefix[NAME_BYTES];
    size_t low = 0, high = c->tensor_count, bytes, end;

    (void)snprintf(prefix, sizeof(prefix), "%s.", module);
    bytes = strlen(prefix);
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
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
