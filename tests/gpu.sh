#!/bin/bash
# The CUDA kernels on a machine with a GPU: builds, runs their tests, compares every fixture's logits
# with those of transformers, looks for accesses that are none, prints a table. With two GPUs also
# what travels between them, and that two ranks score as one.
#
#   tests/gpu.sh                all of it
#   tests/gpu.sh --build-only   builds; needs a CUDA toolkit but no GPU
#   tests/gpu.sh --run-only     runs what was built, here or elsewhere
#
# BUILD names the build folder, build/gpu by default, SCRATCH one with 26 GB for the bench; SHARED=yes
# lets ranks share a GPU, too. Exit code 1 when anything failed.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

mode=${1:-all}
build=${BUILD:-build/gpu}
tests="linear load rows router mlp attention sample attention_block blocks block_refusals experts"
sanitized="test_linear test_blocks"
log=$build/gpu-logs
scratch=${SCRATCH:-/dev/shm} # 26 GB, while the bench loads

case $mode in
all | --build-only | --run-only) ;;
*)
    sed -n '2,13s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac

build_all() {
    local launcher=()
    if command -v ccache >/dev/null; then
        launcher=(-DCMAKE_C_COMPILER_LAUNCHER=ccache)
    fi
    cmake -B "$build" -G Ninja -DTSR_CUDA=ON -DCMAKE_BUILD_TYPE=RelWithDebInfo "${launcher[@]}" &&
        cmake --build "$build" -j "${JOBS:-$(nproc)}" -- --quiet
}

rows=()
failed=0

# step NAME COMMAND...: runs it, keeps what it said, adds a row.
step() {
    local name=$1 said result=passed
    shift
    if ! "$@" >"$log/$name" 2>&1; then
        result=FAILED
        failed=1
    fi
    said=$(grep -E 'log-prob|graded|ERROR SUMMARY|RACECHECK SUMMARY|error:|not found|not .* of at most' "$log/$name" | tail -n 1)
    rows+=("$(printf '%-28s %-7s %s' "$name" "$result" "$said")")
    printf '%s\n' "${rows[-1]}"
}

# Every fixture as it would be served here, and with exact activations.
score() {
    local folder=$1 logits=$2 out
    shift 2
    out=$log/given.safetensors
    rm -f "$out"
    "$build/bin/tessera" score "$folder" --backend cuda --tokens "$folder/expected.safetensors" \
        --out "$out" "$@" &&
        python3 tests/oracle/parity.py "$folder/expected.safetensors" "$out" "$logits"
}

# same_by_many FOLDER LAUNCHER... -- OPTION...: the bytes of one rank's logits, by several.
same_by_many() {
    local folder=$1 out=$log/by launcher=()
    shift
    while [ "$1" != -- ]; do
        launcher+=("$1")
        shift
    done
    shift
    "$build/bin/tessera" score "$folder" --backend cuda --tokens "$folder/expected.safetensors" \
        --out "$out.one" &&
        "${launcher[@]}" "$build/bin/tessera" score "$folder" --backend cuda \
            --tokens "$folder/expected.safetensors" --out "$out.many" "$@" &&
        cmp "$out.one" "$out.many"
}

# Answers of the demo model by the GPU, against what its tasks have for an answer.
grade() {
    local folder=tests/data/demo-mixed asked=$log/requests.jsonl given=$log/answers.jsonl
    rm -f "$given"
    python3 tests/oracle/grade.py requests "$folder/grading.jsonl" >"$asked" &&
        "$build/bin/tessera" run "$folder" --backend cuda --input "$asked" --output "$given" &&
        python3 tests/oracle/grade.py answers "$folder/grading.jsonl" "$given" 0.995
}

# Ranks of one GPU: the bytes of one rank. NCCL allows it from 2.30 on; without MPS they take turns.
run_shared() {
    local ranks folder
    CUDA_MPS_PIPE_DIRECTORY=$(mktemp -d)
    CUDA_MPS_LOG_DIRECTORY=$CUDA_MPS_PIPE_DIRECTORY
    export CUDA_MPS_PIPE_DIRECTORY CUDA_MPS_LOG_DIRECTORY NCCL_MAX_CTAS=2
    nvidia-cuda-mps-control -d || return
    for ranks in 2 4 8; do
        for folder in tests/data/qwen3-nvfp4 tests/data/glm4-mixed; do
            step "$(basename "$folder").shared-$ranks" same_by_many "$folder" \
                mpirun --bind-to none --oversubscribe -n "$ranks" -- --ranks-per-gpu "$ranks"
        done
    done
    echo quit | nvidia-cuda-mps-control
    unset CUDA_MPS_PIPE_DIRECTORY CUDA_MPS_LOG_DIRECTORY NCCL_MAX_CTAS
}

run_two() {
    local two=(mpirun --bind-to none -n 2) folder
    step "exchange.threads" "$build/bin/test_exchange" local cuda
    step "exchange.processes" "${two[@]}" "$build/bin/test_exchange" mpi cuda
    step "exchange_cards" "$build/bin/test_exchange_cards" local cuda
    for folder in tests/data/*-nvfp4 tests/data/*-fp8; do
        step "$(basename "$folder").two" same_by_many "$folder" "${two[@]}" --
        step "$(basename "$folder").two-small" same_by_many "$folder" "${two[@]}" -- \
            --exchange-tokens 4
    done
    step faults tests/gpu_faults.sh "$build" "$scratch"
    cat "$log/faults"
}

run_all() {
    local name folder card served=hopper
    card=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null | head -n 1)
    if [ -z "$card" ]; then
        echo "gpu.sh: nvidia-smi shows no GPU" >&2
        exit 1
    fi
    case $card in
    *B200*) served=declared ;;
    esac
    mkdir -p "$log"
    for name in $tests; do
        step "test_$name" "$build/bin/test_$name"
    done
    for folder in tests/data/*/; do
        folder=${folder%/}
        if [ -e "$folder/expected.safetensors" ]; then
            name=$(basename "$folder")
            step "$name.weight-only" score "$folder" weight_only --activations weight-only
            step "$name.$served" score "$folder" "$served"
        fi
    done
    step grading grade
    if [ "$(nvidia-smi --list-gpus | wc -l)" -ge 2 ]; then
        run_two
    fi
    if [ "${SHARED:-no}" = yes ]; then
        run_shared
    fi
    step bench_blocks "$build/bin/bench_blocks"
    step bench "$build/bin/tessera" bench --backend cuda --shape qwen3-30b-a3b --scratch "$scratch" \
        --precision experts=nvfp4,fp8
    cat "$log/bench_blocks" "$log/bench"
    PATH=$PATH:/usr/local/cuda/bin
    for name in $sanitized; do
        step "memcheck.$name" compute-sanitizer --tool memcheck --error-exitcode 1 \
            "$build/bin/$name"
        step "racecheck.$name" compute-sanitizer --tool racecheck --error-exitcode 1 \
            "$build/bin/$name"
    done
    echo
    echo "$card, $(date -u +%F), $build"
    printf '%s\n' "${rows[@]}"
}

if [ "$mode" != --run-only ]; then
    build_all || exit 1
fi
if [ "$mode" != --build-only ]; then
    run_all
fi
exit "$failed"
