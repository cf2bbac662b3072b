#!/bin/bash
# fetch.sh build|run GPU: the packages of one half of an image. GPU (yes or no) adds what NVIDIA's
# repository has, which the base image must know.
set -euo pipefail
# shellcheck source=deploy/packages.sh
. "$(dirname "$0")/packages.sh"
half=$1
gpu=$2

# The libraries behind the packages that programs are built with: what they depend on themselves.
libraries_of() {
    local names
    names=$(tr -s ' \n' '\n' <<<"$*" | grep -e '-dev$')
    # shellcheck disable=SC2086 # a list of names
    apt-cache show --no-all-versions $names | sed -n 's/^Depends: //p' | tr ',' '\n' |
        sed 's/^ *//; s/ .*//' | grep -E '^lib.*[0-9](t64)?$' | sort -u
}

# NAME=VERSION of NCCL's packages: the newest for the CUDA version that the base names, whatever it
# holds back.
nccl_of_base() {
    local version cuda=${CUDA_VERSION:?is not named by this base image: GPUs need one of NVIDIA}
    version=$(apt-cache madison libnccl2 |
        awk -v cuda="+cuda${cuda%%.*}." 'index($3, cuda) && found++ == 0 { print $3 }')
    if [ -z "$version" ]; then
        echo "fetch.sh: the repository of the base image has no NCCL for CUDA $cuda" >&2
        return 1
    fi
    printf '%s\n' "${@/%/=$version}"
}

apt-get update
case $half in
build)
    names=$packages_build
    [ "$gpu" != yes ] || names="$names $(nccl_of_base libnccl2 libnccl-dev)"
    ;;
run)
    # Ranks of several containers are started by ssh; ibverbs-providers are drivers of InfiniBand.
    names="openmpi-bin openssh-server ibverbs-providers $(libraries_of "$packages_build")"
    [ "$gpu" != yes ] || names="$names $(nccl_of_base libnccl2)"
    ;;
*)
    echo "fetch.sh build|run yes|no" >&2
    exit 2
    ;;
esac
# shellcheck disable=SC2086 # a list of names
DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
    --allow-change-held-packages $names
apt-get clean
rm -rf /var/lib/apt/lists/*
