/* Everything that a generation owns goes with it. */
#include "launch/request/generation.h"

#include <stdlib.h>

void tsr_generation_close(tsr_generation *generation)
{
    for (size_t i = 0; i < generation->prompt_count; i++)
        tsr_ids_close(&generation->prompts[i]);
    free(generation->prompts);
    json_decref(generation->tools);
    for (size_t i = 0; i < generation->stop_count; i++)
        free(generation->stops[i]);
    free(generation->stops);
    free((int32_t *)(uintptr_t)generation->request.stop_ids);
    free((tsr_token_rules *)(uintptr_t)generation->request.rules);
    free((char *)(uintptr_t)generation->request.guide);
    *generation = (tsr_generation){0};
}
