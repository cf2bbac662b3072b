/* Whatever lies in the folder is ours: it had a name that nobody else has. */
#include "launch/bench/scratch_checkpoint.h"

#include "runtime/base/file.h"
#include "runtime/base/log.h"
#include "runtime/base/machine.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATH_BYTES = 4096 };

tsr_synthetic_request tsr_scratch_request(const tsr_config *config)
{
    const tsr_machine_cpus cpus = tsr_machine_cpus_read("");
    return (tsr_synthetic_request){
        .shape = config->shape,
        .precision = config->precision,
        .layers = (int32_t)config->layers,
        .vocab = (int32_t)config->vocab,
        .threads = tsr_machine_threads(&cpus, 1),
        .seed = 1,
    };
}

static tsr_status make_folder(const tsr_config *config, tsr_scratch_checkpoint *scratch)
{
    char path[PATH_BYTES];

    if (tsr_path_join(config->scratch, "tessera-bench-XXXXXX", sizeof(path), path) != TSR_OK ||
        mkdtemp(path) == NULL) {
        tsr_log(TSR_LOG_ERROR, "--scratch %s: cannot be written to: %s", config->scratch,
                strerror(errno));
        return TSR_ERR_OUTPUT;
    }
    scratch->folder = strdup(path);
    if (scratch->folder != NULL)
        return TSR_OK;
    (void)rmdir(path);
    return TSR_ERR_MEMORY;
}

tsr_status tsr_scratch_checkpoint_make(const tsr_config *config, tsr_scratch_checkpoint *scratch)
{
    tsr_synthetic_request request = tsr_scratch_request(config);
    tsr_synthetic_result made;

    tsr_status st = make_folder(config, scratch);
    if (st != TSR_OK)
        return st;
    request.folder = scratch->folder;
    st = tsr_synthetic_write(&request, &made);
    if (st == TSR_OK)
        tsr_log(TSR_LOG_INFO, "%s: %.2f GB made in %.2f s", scratch->folder,
                (double)made.bytes / 1e9, (double)made.ns / 1e9);
    else
        tsr_scratch_checkpoint_remove(scratch);
    return st;
}

void tsr_scratch_checkpoint_remove(tsr_scratch_checkpoint *scratch)
{
    if (scratch->folder == NULL)
        return;
    DIR *folder = opendir(scratch->folder);
    for (const struct dirent *entry; folder != NULL && (entry = readdir(folder)) != NULL;) {
        char path[PATH_BYTES];
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (tsr_path_join(scratch->folder, entry->d_name, sizeof(path), path) == TSR_OK)
            (void)unlink(path);
    }
    if (folder != NULL)
        (void)closedir(folder);
    if (rmdir(scratch->folder) != 0)
        tsr_log(TSR_LOG_WARN, "%s: cannot be removed: %s", scratch->folder, strerror(errno));
    free(scratch->folder);
    scratch->folder = NULL;
}
