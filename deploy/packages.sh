# Debian 12 and Ubuntu 24.04 packages, and their installation. Sourced, not run.

# To build, to package (file), and to run. Open MPI brings its ssh client along.
packages_build="build-essential cmake ninja-build pkg-config libopenmpi-dev openmpi-bin
    libjansson-dev libpcre2-dev libutf8proc-dev libxxhash-dev libprotobuf-c-dev
    protobuf-c-compiler libhwloc-dev libevent-dev libssl-dev libedit-dev file"

# To test: clang's tools in the version whose opinion counts, and its sanitizers and fuzzer.
packages_test="libcmocka-dev python3 python3-jsonschema python3-yaml ccache mandoc debootstrap iproute2 clang-14 clang-format-14 clang-tidy-14
    clang-tools-14 libclang-rt-14-dev"

# What some tests are skipped without: a Slurm of one node, which a test starts for itself. They bring
# services along, so only root's machines (containers, CI) get them.
packages_services="slurmctld slurmd slurm-client libpmix-dev"

# To compute on NVIDIA GPUs, from NVIDIA's package repository: the toolkit, and NCCL where there are several.
packages_gpu="cuda-toolkit libnccl-dev libnccl2"

# Runs a command as root; false when that is not possible.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        return 1
    fi
}

# install_packages NAME...: does nothing, and asks nobody, when all are there.
install_packages() {
    local missing="" name log there
    there=$(dpkg-query -W -f '${Package} ${Status}\n' "$@" 2>/dev/null || true)
    for name in "$@"; do
        if ! grep -q "^$name .* ok installed$" <<<"$there"; then
            missing="$missing $name"
        fi
    done
    if [ -z "$missing" ]; then
        return 0
    fi
    if ! command -v apt-get >/dev/null; then
        echo "This is neither Debian nor Ubuntu. What these packages hold is needed:$missing" >&2
        return 1
    fi
    if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then
        echo "Packages are missing and this is neither root nor is there sudo. As root:" >&2
        echo "    apt-get install --no-install-recommends$missing" >&2
        return 1
    fi

    echo "==> Installing$missing"
    log=$(mktemp)
    if ! {
        as_root apt-get update &&
            as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
                $missing
    } >"$log" 2>&1; then
        tail -n 30 "$log" >&2
        echo "The package manager failed; its last lines are above." >&2
        rm -f "$log"
        return 1
    fi
    rm -f "$log"
}
