/*
 * `tessera doctor`: what the machines of a job have, what passes between its ranks, what is wrong
 * with either, and what to do about it. Needs no checkpoint.
 *
 * As JSON:
 *   { "version", "ranks", "transport", "exit_code",
 *     "hosts": [ { "host", "ranks", "version", "binary", "mpi_library", "cores", "cores_allowed",
 *                  "core_quota" (null: none), "numa_nodes", "numa_bound", "memory_allowed",
 *                  "memory_installed", "shared_memory", "open_files", "locked_bytes", "core_bytes"
 *                  (null: no limit), "read_bandwidth", "gpus", "gpu", "nvidia_driver", "nccl",
 *                  "fast_links" } ],
 *     "pairs": [ { "from", "to", "latency_us", "bandwidth" } ],
 *     "findings": [ { "severity": "error" | "advice", "what", "why", "mend" } ] }
 * Amounts are bytes, bandwidths bytes a second; a host's are those of its first rank, but for
 * read_bandwidth, which is that of all its ranks together.
 */
#ifndef TSR_LAUNCH_DOCTOR_DOCTOR_COMMAND_H
#define TSR_LAUNCH_DOCTOR_DOCTOR_COMMAND_H

#include "launch/cli/config.h"

#include <stdio.h>

/* The status that a job would end with; TSR_OK where nothing found would end one. */
TSR_MUST_USE tsr_status tsr_doctor_command(const tsr_config *config, const tsr_launch_info *info,
                                           FILE *out);

#endif
