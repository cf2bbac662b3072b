/* jansson asks here for its memory, and what it did not get is remembered for the thread that asked. */
#include "runtime/base/json_memory.h"

#include <jansson.h>
#include <pthread.h>
#include <stdlib.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static _Thread_local bool ran_out;

static void *allocate(size_t bytes)
{
    void *memory = malloc(bytes);
    if (memory == NULL)
        ran_out = true;
    return memory;
}

static void hook_in(void)
{
    json_set_alloc_funcs(allocate, free);
}

void tsr_json_memory_begin(void)
{
    (void)pthread_once(&once, hook_in);
    ran_out = false;
}

bool tsr_json_memory_ran_out(void)
{
    return ran_out;
}
