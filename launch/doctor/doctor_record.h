/* What one rank finds on its machine, for `tessera doctor`. */
#ifndef TSR_LAUNCH_DOCTOR_DOCTOR_RECORD_H
#define TSR_LAUNCH_DOCTOR_DOCTOR_RECORD_H

#include "launch/job/host_record.h"
#include "runtime/base/machine.h"

#include <stdint.h>

enum { TSR_DOCTOR_TEXT_BYTES = 64, TSR_DOCTOR_HOST_BYTES = 256 };

/* Sent between ranks as it is. Limits are UINT64_MAX where there is none. */
typedef struct tsr_doctor_record {
    char host[TSR_DOCTOR_HOST_BYTES];
    char version[TSR_DOCTOR_TEXT_BYTES];
    char mpi_library[TSR_DOCTOR_TEXT_BYTES];
    char card_name[TSR_DOCTOR_TEXT_BYTES]; /* of the first GPU; "": none that this build can see */
    tsr_host_networks networks;
    uint64_t binary_digest;  /* of the program's file; 0: it cannot be read */
    uint64_t memory_allowed; /* what this process may still take; 0: not known */
    uint64_t memory_installed;
    uint64_t shared_memory; /* what is free in /dev/shm */
    uint64_t open_files;    /* limits of this process */
    uint64_t locked_bytes;
    uint64_t core_bytes;
    double read_bandwidth; /* bytes a second, all ranks reading at once; 0: not measured */
    tsr_machine_cpus cpus;
    int32_t host_cores; /* that the machine has, whoever may use them */
    int32_t numa_nodes;
    int32_t numa_bound;  /* of them those whose cores this process may run on */
    int32_t fast_links;  /* InfiniBand and the like */
    int32_t cards;       /* GPUs that this build can use */
    int32_t driver;      /* nonzero: a driver of NVIDIA's runs here */
    int32_t card_links;  /* nonzero: this build and this machine have NCCL */
    int32_t tcp_retries; /* before a connection is given up; 0: not known */
    int32_t ranks_here;  /* of the job on this machine */
} tsr_doctor_record;

/* Everything but what takes all ranks: the bandwidth and ranks_here. */
tsr_doctor_record tsr_doctor_record_read(void);

#endif
