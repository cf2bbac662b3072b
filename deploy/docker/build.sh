#!/bin/bash
# build.sh GPU OUT: the Debian package of these sources, as OUT/tessera.deb; with the CUDA backend,
# or without. Fetches nothing.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=$2
cuda=OFF
[ "$1" != yes ] || cuda=ON

cmake --preset release -B "$out/build" -DTSR_CUDA=$cuda -DTSR_NCCL=$cuda
cmake --build "$out/build" -- --quiet
(cd "$out/build" && cpack)
mv "$out"/build/tessera_*.deb "$out/tessera.deb"
rm -rf "$out/build"
