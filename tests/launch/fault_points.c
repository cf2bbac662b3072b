/*
 * Preloaded into every rank of a job that is broken on purpose (fault_matrix.py). Where a job has a
 * moment too short to be hit from outside, the rank says that it has come there, by a file
 * FAULT_FOLDER/<moment>.<rank>, and stays for FAULT_PAUSE_MS, if FAULT_MOMENT is that moment:
 *
 *   start     about to start MPI
 *   started   MPI has started, nothing is planned
 *   load      about to read weights for the first time
 *   end       about to end MPI
 *
 * And while there is a file FAULT_FOLDER/garble.<rank>, what rank 0 broadcasts has a bit turned
 * round: in the sender's message, or where it arrives.
 *
 * Open MPI's handles are pointers, which is all that is used of its types.
 */
#define _GNU_SOURCE /* RTLD_NEXT */
#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

enum { PATH_BYTES = 512, WEIGHTS_BYTES = 1 << 16, BROADCAST_TAG = 2, MOST_BYTES = 1 << 20 };

/* Within the digest of a step, and within the bytes of a plan. */
enum { GARBLED_BYTE = 33 };

/* NOLINTBEGIN(readability-function-size, readability-inconsistent-declaration-parameter-name): these
 * are as their owners declare them */
int MPI_Init_thread(int *argc, char ***argv, int required, int *provided);
int PMPI_Init_thread(int *argc, char ***argv, int required, int *provided);
int MPI_Finalize(void);
int PMPI_Finalize(void);
int MPI_Isend(const void *bytes, int count, void *type, int to, int tag, void *comm,
              void **request);
int PMPI_Isend(const void *bytes, int count, void *type, int to, int tag, void *comm,
               void **request);
int MPI_Irecv(void *bytes, int count, void *type, int from, int tag, void *comm, void **request);
int PMPI_Irecv(void *bytes, int count, void *type, int from, int tag, void *comm, void **request);
int MPI_Testsome(int count, void **requests, int *done, int *indices, void *statuses);
int PMPI_Testsome(int count, void **requests, int *done, int *indices, void *statuses);

static unsigned char *expected; /* of the last broadcast that is to arrive; NULL: none */

static void path_of(const char *name, char path[PATH_BYTES])
{
    const char *folder = getenv("FAULT_FOLDER");
    const char *rank = getenv("OMPI_COMM_WORLD_RANK");
    (void)snprintf(path, PATH_BYTES, "%s/%s.%s", folder != NULL ? folder : ".", name,
                   rank != NULL ? rank : "0");
}

static bool asked_to_garble(void)
{
    char path[PATH_BYTES];
    path_of("garble", path);
    return access(path, F_OK) == 0;
}

static void stay_at(const char *moment)
{
    const char *pause = getenv("FAULT_PAUSE_MS");
    const char *wanted = getenv("FAULT_MOMENT");
    const long ms = pause != NULL ? strtol(pause, NULL, 10) : 0;
    struct timespec left = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    char path[PATH_BYTES];

    if (wanted == NULL || strcmp(wanted, moment) != 0)
        return;
    path_of(moment, path);
    FILE *file = fopen(path, "w");
    if (file != NULL)
        (void)fclose(file);
    while (nanosleep(&left, &left) != 0) {
    }
}

int MPI_Init_thread(int *argc, char ***argv, int required, int *provided)
{
    stay_at("start");
    const int code = PMPI_Init_thread(argc, argv, required, provided);
    stay_at("started");
    return code;
}

int MPI_Finalize(void)
{
    stay_at("end");
    return PMPI_Finalize();
}

int MPI_Isend(const void *bytes, int count, void *type, int to, int tag, void *comm, void **request)
{
    static unsigned char garbled[MOST_BYTES];

    if (tag == BROADCAST_TAG && count > GARBLED_BYTE && count <= MOST_BYTES && asked_to_garble()) {
        memcpy(garbled, bytes, (size_t)count);
        garbled[GARBLED_BYTE] ^= 1;
        bytes = garbled;
    }
    return PMPI_Isend(bytes, count, type, to, tag, comm, request);
}

int MPI_Irecv(void *bytes, int count, void *type, int from, int tag, void *comm, void **request)
{
    if (tag == BROADCAST_TAG && count > GARBLED_BYTE)
        expected = bytes;
    return PMPI_Irecv(bytes, count, type, from, tag, comm, request);
}

int MPI_Testsome(int count, void **requests, int *done, int *indices, void *statuses)
{
    const int code = PMPI_Testsome(count, requests, done, indices, statuses);

    if (expected != NULL && *done > 0) {
        if (asked_to_garble())
            expected[GARBLED_BYTE] ^= 1;
        expected = NULL;
    }
    return code;
}

static ssize_t read_weights(const char *name, int file, void *into, size_t bytes, off_t at)
{
    static bool begun;
    ssize_t (*next)(int, void *, size_t, off_t) = NULL;

    *(void **)&next = dlsym(RTLD_NEXT, name); /* as POSIX has it */
    if (bytes >= WEIGHTS_BYTES && !begun) {
        begun = true;
        stay_at("load");
    }
    return next(file, into, bytes, at);
}

ssize_t pread(int file, void *into, size_t bytes, off_t at)
{
    return read_weights("pread", file, into, bytes, at);
}

ssize_t pread64(int file, void *into, size_t bytes, off_t at);
ssize_t pread64(int file, void *into, size_t bytes, off_t at)
{
    return read_weights("pread64", file, into, bytes, at);
}
/* NOLINTEND(readability-function-size, readability-inconsistent-declaration-parameter-name) */
