/* Feeds every file of the folders named to a fuzz target, once: what the fuzzers found stays
 * fixed, and the targets stay alive in builds without libFuzzer. */
#include "tests/fuzz/fuzz.h"

#include "runtime/base/file.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

enum { MOST_BYTES = 1 << 24, PATH_BYTES = 4096 };

/* False when it cannot be read. */
static bool replay_file(const char *folder, const char *name)
{
    char path[PATH_BYTES];
    char *bytes = NULL;
    size_t count = 0;

    if (tsr_path_join(folder, name, sizeof(path), path) != TSR_OK ||
        tsr_file_read_text(path, MOST_BYTES, &bytes, &count) != TSR_OK)
        return false;
    (void)LLVMFuzzerTestOneInput((const uint8_t *)bytes, count);
    free(bytes);
    return true;
}

/* The number of files fed, or -1. */
static int replay_folder(const char *folder)
{
    DIR *directory = opendir(folder);
    int count = 0;

    if (directory == NULL)
        return -1;
    for (const struct dirent *entry = readdir(directory); entry != NULL && count >= 0;
         entry = readdir(directory)) {
        if (entry->d_name[0] == '.')
            continue;
        count = replay_file(folder, entry->d_name) ? count + 1 : -1;
    }
    (void)closedir(directory);
    return count;
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const int count = replay_folder(argv[i]);
        if (count <= 0) {
            (void)fprintf(stderr, "%s: no files, or not readable\n", argv[i]);
            return 1;
        }
        (void)printf("%s: %d inputs\n", argv[i], count);
    }
    return argc > 1 ? 0 : 1;
}
