/*
 * A folder is read by two threads, because both halves are long and neither needs the other:
 *
 *   this thread   config.json, hf_quant_config.json ...  -> arena, problems --+
 *   another       the header of every file               -> arena, problems --+--> one checkpoint
 *
 * An arena belongs to one thread, so each has its own. Problems are joined in one fixed order: a
 * run says the same as the last one.
 */
#include "runtime/checkpoint/checkpoint.h"

#include "runtime/base/arena.h"
#include "runtime/checkpoint/configs.h"
#include "runtime/checkpoint/tensor_list.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { FIRST_BYTES = 1 << 20 };

/* Configurations and headers are read side by side: both are large, and neither needs the other. */
typedef struct storage {
    tsr_arena *configs;
    tsr_arena *tensors;
} storage;

typedef struct header_reading {
    const char *folder;
    tsr_arena *memory;
    tsr_problems problems;
    tsr_tensor_list list;
    tsr_status status;
} header_reading;

static void *read_headers(void *argument)
{
    header_reading *r = argument;
    r->status = tsr_tensor_list_read(r->folder, r->memory, &r->problems, &r->list);
    return NULL;
}

/* Moves problems of one list to the end of another. */
static void append_problems(tsr_problems *from, tsr_problems *to)
{
    size_t errors = 0;
    for (size_t i = 0; i < from->count; i++) {
        errors += from->items[i].severity == TSR_SEVERITY_ERROR;
        tsr_problems_add(to, from->items[i].severity, "%s", from->items[i].text);
    }
    to->errors += from->errors - errors;
    to->dropped += from->dropped;
    tsr_problems_close(from);
}

static tsr_status storage_open(storage **ret_storage)
{
    storage *s = calloc(1, sizeof(*s));
    if (s == NULL)
        return TSR_ERR_MEMORY;

    tsr_status st = tsr_arena_open(FIRST_BYTES, &s->configs);
    if (st != TSR_OK)
        goto free_storage;
    st = tsr_arena_open(FIRST_BYTES, &s->tensors);
    if (st != TSR_OK)
        goto close_configs;
    *ret_storage = s;
    return TSR_OK;

close_configs:
    tsr_arena_close(s->configs);
free_storage:
    free(s);
    return st;
}

static void storage_close(storage *s)
{
    tsr_arena_close(s->tensors);
    tsr_arena_close(s->configs);
    free(s);
}

/* Both readings; without a second thread one after the other. */
static tsr_status read_folder(header_reading *headers, tsr_arena *memory, tsr_problems *problems,
                              tsr_configs *configs)
{
    pthread_t thread;
    const bool started = pthread_create(&thread, NULL, read_headers, headers) == 0;

    const tsr_status st = tsr_configs_read(headers->folder, memory, problems, configs);
    if (started)
        (void)pthread_join(thread, NULL);
    else
        (void)read_headers(headers);
    append_problems(&headers->problems, problems);
    return tsr_status_of_two(st, headers->status);
}

static tsr_status keep(const char *folder, const tsr_configs *configs, const tsr_tensor_list *list,
                       storage *s, tsr_checkpoint **ret_checkpoint)
{
    tsr_checkpoint *checkpoint = tsr_arena_alloc(s->configs, sizeof(*checkpoint));
    char *name = tsr_arena_text(s->configs, folder, strlen(folder));
    if (checkpoint == NULL || name == NULL)
        return TSR_ERR_MEMORY;

    *checkpoint = (tsr_checkpoint){
        .folder = name,
        .files = list->index.files,
        .marks = list->marks,
        .tensors = list->tensors,
        .tensor_count = list->count,
        .file_count = list->index.file_count,
        .model = configs->model,
        .declared = configs->declared,
        .generation = configs->generation,
        .memory = s,
    };
    *ret_checkpoint = checkpoint;
    return TSR_OK;
}

/* One line for one cause: without the folder every file in it would be named as missing. */
static tsr_status check_folder(const char *folder, tsr_problems *problems)
{
    struct stat found;

    if (stat(folder, &found) != 0)
        tsr_problems_add(problems, TSR_SEVERITY_ERROR,
                         "%s: %s; nothing is downloaded: give the folder of a checkpoint", folder,
                         strerror(errno));
    else if (!S_ISDIR(found.st_mode))
        tsr_problems_add(problems, TSR_SEVERITY_ERROR,
                         "%s: not a folder; give the folder that holds config.json and the "
                         "safetensors files",
                         folder);
    else
        return TSR_OK;
    return TSR_ERR_CHECKPOINT;
}

/* A head that is stored is the one that is meant, tied or not; where it is the embedding once more,
 * nothing changes. */
static void settle_head(tsr_checkpoint *checkpoint, tsr_problems *problems)
{
    if (!checkpoint->model.tied_head || tsr_checkpoint_find(checkpoint, "lm_head.weight") == NULL)
        return;
    checkpoint->model.tied_head = false;
    tsr_problems_add(
        problems, TSR_SEVERITY_NOTE,
        "config.json: tie_word_embeddings: true, but lm_head.weight is stored and used");
}

tsr_status tsr_checkpoint_open(const char *folder, tsr_problems *problems,
                               tsr_checkpoint **ret_checkpoint)
{
    storage *s = NULL;
    tsr_status st = check_folder(folder, problems);
    if (st == TSR_OK)
        st = storage_open(&s);
    if (st != TSR_OK)
        return st;

    header_reading headers = {.folder = folder, .memory = s->tensors};
    tsr_configs configs = {0};
    st = read_folder(&headers, s->configs, problems, &configs);
    if (st == TSR_OK)
        st = tsr_tensor_list_settle(&headers.list, &configs.model, s->tensors, problems);
    if (st == TSR_OK)
        st = keep(folder, &configs, &headers.list, s, ret_checkpoint);
    tsr_tensor_list_close(&headers.list);
    if (st == TSR_OK)
        settle_head(*ret_checkpoint, problems);
    else
        storage_close(s);
    return st;
}

const tsr_tensor *tsr_checkpoint_find(const tsr_checkpoint *checkpoint, const char *name)
{
    const tsr_tensor wanted = {.name = name};

    return bsearch(&wanted, checkpoint->tensors, checkpoint->tensor_count, sizeof(wanted),
                   tsr_tensor_compare_names);
}

void tsr_checkpoint_close(tsr_checkpoint *checkpoint)
{
    if (checkpoint != NULL)
        storage_close(checkpoint->memory);
}
