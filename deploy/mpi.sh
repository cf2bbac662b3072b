# What mpirun wants to hear to start ranks as anybody, root included, on any number of cores, in a
# container or not; Open MPI 4 and 5. Sourced, not run.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1 PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe

# Containers forbid reading another process's memory; shared memory works everywhere.
export OMPI_MCA_btl_vader_single_copy_mechanism=none

# mpirun asks hwloc for the machine, which would look for X displays: seconds, where name lookups
# are slow.
export HWLOC_COMPONENTS=-gl

# mpi_of BUILD: the mpirun that belongs to the library BUILD was linked with.
mpi_of() {
    sed -n 's/^MPIEXEC_EXECUTABLE:[^=]*=//p' "$1/CMakeCache.txt"
}
