/* One list of all files, sorted by name: a tensor is found by search, and those of a module stand
 * together. A name that two files hold is refused, for either could be the right one. */
#include "runtime/checkpoint/tensor_list.h"

#include "runtime/base/file.h"
#include "runtime/checkpoint/folder_json.h"
#include "runtime/checkpoint/fused_experts.h"
#include "runtime/checkpoint/module_name.h"

#include <stdlib.h>
#include <string.h>

int tsr_tensor_compare_names(const void *left, const void *right)
{
    const tsr_tensor *a = left;
    const tsr_tensor *b = right;
    return strcmp(a->name, b->name);
}

static tsr_status read_header(const char *folder, int32_t file, tsr_arena *memory,
                              tsr_problems *problems, const tsr_tensor_list *list,
                              tsr_safetensors *ret_header)
{
    char path[TSR_PATH_BYTES];
    const char *name = list->index.files[file];

    if (tsr_path_join(folder, name, sizeof(path), path) != TSR_OK) {
        tsr_problems_add(problems, TSR_SEVERITY_ERROR, "%s: the folder's path is too long", name);
        return TSR_ERR_CHECKPOINT;
    }
    return tsr_safetensors_open(path, name, file, memory, problems, ret_header);
}

static tsr_status join_headers(const tsr_safetensors *headers, tsr_arena *memory,
                               tsr_tensor_list *list)
{
    size_t count = 0;
    for (size_t i = 0; i < list->index.file_count; i++)
        count += headers[i].count;

    list->tensors = tsr_arena_array(memory, count + 1, sizeof(tsr_tensor));
    list->marks = tsr_arena_array(memory, list->index.file_count + 1, sizeof(*list->marks));
    if (list->tensors == NULL || list->marks == NULL)
        return TSR_ERR_MEMORY;

    for (size_t i = 0; i < list->index.file_count; i++) {
        if (headers[i].count > 0)
            memcpy(list->tensors + list->count, headers[i].tensors,
                   headers[i].count * sizeof(tsr_tensor));
        list->count += headers[i].count;
        list->marks[i] = headers[i].mark;
    }
    return TSR_OK;
}

static tsr_status read_headers(const char *folder, tsr_arena *memory, tsr_problems *problems,
                               tsr_tensor_list *list)
{
    const size_t count = list->index.file_count;
    tsr_safetensors *headers = calloc(count + 1, sizeof(*headers));
    tsr_status st = headers != NULL ? TSR_OK : TSR_ERR_MEMORY;

    for (size_t i = 0; st != TSR_ERR_MEMORY && i < count; i++) {
        const tsr_status file_st =
            read_header(folder, (int32_t)i, memory, problems, list, &headers[i]);
        if (file_st != TSR_OK)
            st = file_st;
    }
    if (st == TSR_OK)
        st = join_headers(headers, memory, list);
    free(headers);
    return st;
}

tsr_status tsr_tensor_list_read(const char *folder, tsr_arena *memory, tsr_problems *problems,
                                tsr_tensor_list *ret_list)
{
    tsr_tensor_list list = {0};

    tsr_status st = tsr_shard_index_open(folder, memory, problems, &list.index);
    if (st != TSR_OK)
        return st;
    st = read_headers(folder, memory, problems, &list);
    if (st == TSR_OK)
        *ret_list = list;
    else
        tsr_tensor_list_close(&list);
    return st;
}

/* Names that say "language_model." lose it; all others stay where they are. */
static tsr_status make_canonical(tsr_tensor_list *list, tsr_arena *memory)
{
    for (size_t i = 0; i < list->count; i++) {
        tsr_tensor *t = &list->tensors[i];
        char canonical[TSR_MAX_TENSOR_NAME + 8];
        tsr_name_canonical(t->name, canonical);
        if (strcmp(canonical, t->name) == 0)
            continue;
        t->name = tsr_arena_text(memory, canonical, strlen(canonical));
        if (t->name == NULL)
            return TSR_ERR_MEMORY;
    }
    return TSR_OK;
}

static tsr_status sort_by_name(tsr_tensor_list *list, tsr_problems *problems)
{
    tsr_tensor *tensors = list->tensors;
    tsr_status st = TSR_OK;

    qsort(tensors, list->count, sizeof(*tensors), tsr_tensor_compare_names);
    for (size_t i = 1; i < list->count; i++) {
        if (strcmp(tensors[i - 1].name, tensors[i].name) != 0)
            continue;
        tsr_problems_add(problems, TSR_SEVERITY_ERROR, "%s: tensor \"%s\": is in %s as well",
                         list->index.files[tensors[i].file], tensors[i].name,
                         list->index.files[tensors[i - 1].file]);
        st = TSR_ERR_CHECKPOINT;
    }
    return st;
}

tsr_status tsr_tensor_list_settle(tsr_tensor_list *list, const tsr_model_facts *model,
                                  tsr_arena *memory, tsr_problems *problems)
{
    tsr_status st =
        tsr_shard_index_check(&list->index, model, list->tensors, list->count, problems);
    if (st == TSR_OK)
        st = make_canonical(list, memory);
    if (st == TSR_OK)
        st = tsr_fused_experts_split(list, model, memory, problems);
    if (st == TSR_OK)
        st = sort_by_name(list, problems);
    return st;
}

void tsr_tensor_list_close(tsr_tensor_list *list)
{
    tsr_shard_index_close(&list->index);
}
