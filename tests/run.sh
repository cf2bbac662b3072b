#!/bin/bash
# Every test, from a fresh Debian 12 or Ubuntu 24.04 on: installs what is missing, builds with gcc
# (plain, AddressSanitizer and UBSan, ThreadSanitizer) and with clang (fuzzers), and runs the tests of
# all builds as one list. Further arguments go to ctest: tests/run.sh -R comm
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/packages.sh

install_packages $packages_build $packages_test
if [ "$(id -u)" = 0 ]; then
    install_packages $packages_services || echo "Their tests are skipped."
fi

launcher=()
if command -v ccache >/dev/null; then
    launcher=(-DCMAKE_C_COMPILER_LAUNCHER=ccache)
fi

mkdir -p build
builds=(dev asan tsan fuzz)
# Of GPUs, kernels ask only whether they are 90a's: one of the others stands for all.
cards=(-DTSR_CUDA_ARCHITECTURES="90a-real;120-real")
if ! nvidia-smi -L >/dev/null 2>&1; then
    cards+=(-DTSR_CUDA_DRAFT=ON)
fi
for build in "${builds[@]}"; do
    echo "==> Building build/$build"
    cmake --preset "$build" "${launcher[@]}" "${cards[@]}" >build/configure.log 2>&1 || {
        cat build/configure.log >&2
        exit 1
    }
    # what might be faster is of no interest here
    cmake --build "build/$build" -- --quiet 2>&1 | sed '/^ptxas info/d'
done

mkdir -p build/suite
printf 'subdirs(%s)\n' "${builds[@]/#/../}" >build/suite/CTestTestfile.cmake

# One more than there are cores: some wait.
echo "==> Running all tests"
exec ctest --test-dir build/suite -j "$(($(nproc) + 1))" --output-on-failure "$@"
