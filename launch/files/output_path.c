/* Files are told apart by device and inode: a link, or another spelling of a path, is the same
 * file, and a folder of links (as a download cache makes it) holds what they lead to. */
#include "launch/files/output_path.h"

#include "runtime/base/file.h"
#include "runtime/base/log.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { PATH_BYTES = 4096 };

static bool is_same(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

static bool leads_to(const char *path, const struct stat *file)
{
    struct stat there;
    return stat(path, &there) == 0 && is_same(&there, file);
}

/* Whether a path that need not exist yet has this folder as its own. */
static bool lies_in(const char *path, const char *folder)
{
    const char *slash = strrchr(path, '/');
    char parent[PATH_BYTES] = ".";
    struct stat there;

    if (slash != NULL &&
        snprintf(parent, sizeof(parent), "%.*s/", (int)(slash - path), path) >= PATH_BYTES)
        return false;
    return stat(folder, &there) == 0 && leads_to(parent, &there);
}

/* Whether a file of that name in a checkpoint's folder is read as a part of it. */
static bool is_read_by_name(const char *path)
{
    static const char *const ends[] = {".json", ".safetensors", ".jinja"};

    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
        const size_t count = strlen(path);
        const size_t end = strlen(ends[i]);
        if (count >= end && strcmp(path + count - end, ends[i]) == 0)
            return true;
    }
    return false;
}

/* The name under which a folder holds a file; false when it does not. */
static bool find_in(const char *folder, const struct stat *file, char name[PATH_BYTES])
{
    DIR *directory = opendir(folder);
    bool found = false;

    if (directory == NULL)
        return false;
    for (const struct dirent *entry = readdir(directory); entry != NULL && !found;
         entry = readdir(directory)) {
        char path[PATH_BYTES];
        found = tsr_path_join(folder, entry->d_name, sizeof(path), path) == TSR_OK &&
                leads_to(path, file);
        if (found)
            (void)snprintf(name, PATH_BYTES, "%s", entry->d_name);
    }
    (void)closedir(directory);
    return found;
}

tsr_status tsr_output_path_check(const tsr_named_path *output, const char *folder,
                                 const tsr_named_path *reads, size_t count)
{
    char name[PATH_BYTES];
    struct stat file;

    if (output->path == NULL)
        return TSR_OK;
    if (folder != NULL && lies_in(output->path, folder) && is_read_by_name(output->path)) {
        tsr_log(TSR_LOG_ERROR, "%s %s: would become a file of the checkpoint; name another place",
                output->option, output->path);
        return TSR_ERR_ARG;
    }
    if (stat(output->path, &file) != 0 || !(S_ISREG(file.st_mode) || S_ISFIFO(file.st_mode)))
        return TSR_OK;
    for (size_t i = 0; i < count; i++) {
        if (reads[i].path == NULL || !leads_to(reads[i].path, &file))
            continue;
        tsr_log(TSR_LOG_ERROR, "%s %s: is the file of %s; name another one", output->option,
                output->path, reads[i].option);
        return TSR_ERR_ARG;
    }
    if (folder == NULL || !find_in(folder, &file, name))
        return TSR_OK;
    tsr_log(TSR_LOG_ERROR, "%s %s: is %s of the checkpoint %s; name another one", output->option,
            output->path, name, folder);
    return TSR_ERR_ARG;
}
