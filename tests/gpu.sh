#!/bin/bash
# The CUDA kernels on a machine with a GPU: builds, runs their tests, compares every fixture's logits
# with those of transformers, looks for accesses that are none, prints a table. With two GPUs also
# what travels between them, and that two ranks score as one.
#
#   tests/gpu.sh                  all of it
#   tests/gpu.sh --build-only     builds; needs a CUDA toolkit but no GPU
#   tests/gpu.sh --run-only       runs what was built, here or elsewhere
#   tests/gpu.sh --run-only PART  one part: tests fixtures bits commands two bench kernels models disk
#                                 sanitize
#
# BUILD names the build folder, build/gpu by default; SCRATCH one with 26 GB for the bench (65 for the
# larger model, which is left out where there is less), DISK one on a disk, with 7 GB; SHARED=yes lets
# ranks share a GPU, too. Exit code 1 when anything failed.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

mode=${1:-all}
part=${2:-every}
build=${BUILD:-build/gpu}
tests="linear load rows codes router mlp chosen attention sample sample_top sample_rules attention_block decode_block blocks wide_head block_refusals experts"
races="rows blocks wide_head experts attention_block" # whose hand-overs racecheck follows
# Cases of others, for a racecheck of 2026 or later, which follows more: program:what is in their names.
late_races="attention:definition attention:beside attention:chunks attention:decoding decode_block:decoded
    decode_block:shapes mlp:definition mlp:wide_rows linear:every_format linear:together linear:head
    linear:zeros linear:e4m3 router:both_kinds router:far_from sample:temperature_0 sample:text"
sanitizer_s=200 # most that one program may take under a sanitizer
log=$build/gpu-logs
scratch=${SCRATCH:-/dev/shm}
disk=${DISK:-/tmp}

case $mode in
all | --build-only | --run-only) ;;
*)
    sed -n '2,15s/^# \{0,1\}//p' "$0" >&2
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
    said=$(grep -E 'log-prob|graded|ERROR SUMMARY|RACECHECK SUMMARY|error:|not found|not .* of at most|of the disk' \
        "$log/$name" | tail -n 1)
    rows+=("$(printf '%-34s %-7s %s' "$name" "$result" "$said")")
    printf '%s\n' "${rows[-1]}"
}

# logits_by BACKEND FOLDER OUT OPTION...
logits_by() {
    local backend=$1 folder=$2 out=$3
    shift 3
    rm -f "$out"
    "$build/bin/tessera" score "$folder" --backend "$backend" \
        --tokens "$folder/expected.safetensors" --out "$out" "$@"
}

# score FOLDER LOGITS OPTION...: those of the GPU against the fixture's.
score() {
    local folder=$1 logits=$2 out=$log/given.safetensors
    shift 2
    logits_by cuda "$folder" "$out" "$@" &&
        python3 tests/oracle/parity.py "$folder/expected.safetensors" "$out" "$logits"
}

# score_served FOLDER LOGITS CACHE: as it would be served here, beside exact arithmetic over a cache of
# the same type: what that rounds tips codes of the activations behind it.
score_served() {
    local folder=$1 logits=$2 cache=$3 beside=$log/beside.safetensors activations=(--activations declared)
    if [ "$logits" = hopper ]; then
        activations=(--activations-of h200)
    fi
    logits_by cpu "$folder" "$beside" --kv-cache-dtype "$cache" "${activations[@]}" &&
        logits_by cuda "$folder" "$log/given.safetensors" &&
        python3 tests/oracle/parity.py "$folder/expected.safetensors" "$log/given.safetensors" \
            "$logits" "$beside"
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

# ids MOST FILE: eight sequences of random ids below MOST.
ids() {
    python3 -c "import json, random
draw = random.Random(11)
lengths = [1180, 1, 3, 30, 130, 260, 700, 590]
print(json.dumps([[draw.randrange(5, $1) for _ in range(n)] for n in lengths]))" >"$2"
}

# cut_alike FOLDER IDS OPTION...: the bytes of the logits when sequences are cut into such steps, again
# and again: what only sometimes differs has to be looked for.
cut_alike() {
    local folder=$1 tokens=$2 out=$log/cut turn
    shift 2
    for turn in 1 2 3; do
        "$build/bin/tessera" score "$folder" --backend cuda --tokens "$tokens" --out "$out" "$@" &&
            cmp "$log/whole" "$out" || return
    done
}

# cuts NAME FOLDER MOST-ID
cuts() {
    local name=$1 folder=$2 tokens=$log/ids.json chunk
    ids "$3" "$tokens"
    step "$name.whole" "$build/bin/tessera" score "$folder" --backend cuda --tokens "$tokens" \
        --out "$log/whole"
    for chunk in 1 2 3 7 64; do
        step "$name.by-$chunk" cut_alike "$folder" "$tokens" --prefill-chunk "$chunk"
    done
    for chunk in 1 2; do
        step "$name.alone-by-$chunk" cut_alike "$folder" "$tokens" --max-num-seqs 1 \
            --prefill-chunk "$chunk"
    done
}

run_bits() {
    local mixed=$scratch/tessera-bits-$$
    "$build/bin/make_checkpoint" --shape qwen3-30b-a3b --layers 6 --vocab 512 --out "$mixed" \
        --precision experts=nvfp4,fp8,bf16,attention=bf16,fp8-block,fp8,nvfp4 >/dev/null
    cuts demo-mixed tests/data/demo-mixed 1800
    cuts qwen3-mixed-6 "$mixed" 500
    rm -rf "$mixed"
    "$build/bin/make_checkpoint" --shape glm-4.5-air --layers 3 --vocab 512 --out "$mixed" \
        --precision experts=nvfp4,fp8 >/dev/null
    cuts glm4-air-3 "$mixed" 500
    rm -rf "$mixed"
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

# Commands that a GPU has a say in, beside those that everything else here is.
run_commands() {
    local folder=tests/data/demo-mixed asked=$log/few.jsonl
    python3 tests/oracle/grade.py requests "$folder/grading.jsonl" | head -n 64 >"$asked"
    rm -f "$log/few.answers.jsonl"
    step doctor "$build/bin/tessera" doctor
    cat "$log/doctor"
    step report "$build/bin/tessera" run "$folder" --backend cuda --input "$asked" \
        --output "$log/few.answers.jsonl" --report "$log/report.html"
    step report.page grep -q '</html>' "$log/report.html"
}

run_two() {
    local two=(mpirun --bind-to none -n 2) folder test
    for test in exchange exchange_told; do
        step "$test.threads" "$build/bin/test_$test" local cuda
        step "$test.processes" "${two[@]}" "$build/bin/test_$test" mpi cuda
    done
    step "exchange_cards" "$build/bin/test_exchange_cards" local cuda
    step "bench_comm" mpirun --bind-to none -n "$(nvidia-smi --list-gpus | wc -l)" \
        "$build/bin/tessera" bench comm --backend cuda
    cat "$log/bench_comm"
    for folder in tests/data/*-nvfp4 tests/data/*-fp8; do
        step "$(basename "$folder").two" same_by_many "$folder" "${two[@]}" --
        step "$(basename "$folder").two-small" same_by_many "$folder" "${two[@]}" -- \
            --exchange-tokens 4
    done
    step faults tests/gpu_faults.sh "$build" "$scratch"
    cat "$log/faults"
}

# Larger than a GPU's usual model, and the same model with everything in FP8 that can be.
run_models() {
    local free_gb
    step bench.fp8 "$build/bin/tessera" bench --backend cuda --shape qwen3-30b-a3b \
        --scratch "$scratch" --precision experts=nvfp4,fp8,attention=fp8,head=fp8
    cat "$log/bench.fp8"
    free_gb=$(df --output=avail -BG "$scratch" | tail -n 1 | tr -dc 0-9)
    if [ "$free_gb" -lt 65 ]; then
        echo "glm-4.5-air: left out, $scratch has $free_gb GB of 65"
        return
    fi
    step bench.glm "$build/bin/tessera" bench --backend cuda --shape glm-4.5-air \
        --scratch "$scratch" --precision experts=nvfp4 --batch 1,8,32 --prefill 4096
    cat "$log/bench.glm"
}

# load_from FOLDER: how fast weights come from a disk, beside how fast it gives the same files to dd.
# No file is in memory when either begins.
load_from() {
    local folder=$1/tessera-disk-$$ file begin bytes=0 dd_ns=0 rate
    "$build/bin/make_checkpoint" --shape qwen3-30b-a3b --layers 12 --precision experts=nvfp4,fp8 \
        --out "$folder" || return
    sync
    begin=$(date +%s%N)
    for file in "$folder"/*.safetensors; do
        dd if="$file" of=/dev/null bs=16M iflag=direct status=none ||
            dd if="$file" of=/dev/null bs=16M iflag=nocache status=none || return
        bytes=$((bytes + $(stat -c %s "$file")))
    done
    dd_ns=$(($(date +%s%N) - begin))
    for file in "$folder"/*.safetensors; do
        dd if="$file" iflag=nocache count=0 status=none
    done
    "$build/bin/tessera" bench "$folder" --backend cuda --batch none --prefill 512 --json \
        >"$log/disk.json" || return
    rm -rf "$folder"
    rate=$(python3 -c "import json; print(json.load(open('$log/disk.json'))['load']['bytes_per_s'])")
    python3 -c "disk = $bytes / $dd_ns; load = $rate / 1e9
print(f'load {load:.2f} GB/s, {load / disk:.2f} of the disk, which gives dd {disk:.2f} GB/s')"
}

sanitize() {
    local tool=$1 name=$2
    shift 2
    step "$tool.$name${1:+.${1//\*/}}" timeout "$sanitizer_s" compute-sanitizer --tool "$tool" \
        --error-exitcode 1 "$build/bin/test_$name" "$@"
}

run_sanitizers() {
    local name version
    PATH=$PATH:/usr/local/cuda/bin
    for name in $tests; do
        sanitize memcheck "$name"
    done
    for name in $races; do
        sanitize racecheck "$name"
    done
    sanitize racecheck sample '*samples_the_same*' # of thousands of draws no other case would end
    version=$(compute-sanitizer --version | sed -n 's/^Version \([0-9]*\).*/\1/p')
    if [ "${version:-0}" -ge 2026 ]; then
        for name in $late_races; do
            sanitize racecheck "${name%%:*}" "*${name#*:}*"
        done
    fi
}

run_tests() {
    local name
    for name in $tests exchange_kernels; do
        step "test_$name" "$build/bin/test_$name"
    done
}

run_fixtures() {
    local name folder cache served=hopper
    case $card in
    *B200*) served=declared ;;
    esac
    for folder in tests/data/*/; do
        folder=${folder%/}
        if [ -e "$folder/expected.safetensors" ]; then
            name=$(basename "$folder")
            step "$name.weight-only" score "$folder" weight_only --activations weight-only
            cache=bf16
            if grep -qs '"kv_cache_quant_algo": "FP8"' "$folder/hf_quant_config.json"; then
                cache=fp8
            fi
            step "$name.$served" score_served "$folder" "$served" "$cache"
            case $name in # beside linears in BF16, whose operands are rounded, codes tip all the same
            *-kv-fp8) ;;
            *-fp8 | *-fp8-block | *-fp8-pc-pt)
                step "$name.f32-cache" score "$folder" "$served" --kv-cache-dtype f32
                ;;
            esac
        fi
    done
    step grading grade
}

run_bench() {
    step bench_blocks "$build/bin/bench_blocks"
    step bench "$build/bin/tessera" bench --backend cuda --shape qwen3-30b-a3b --scratch "$scratch" \
        --precision experts=nvfp4,fp8
    cat "$log/bench_blocks" "$log/bench"
}

# What the profiler sees of the kernels of a step of 1 and of 32 tokens.
profile() {
    local folder=$1 tokens=$2 seen=$log/kernels.$2.csv
    ncu --csv --print-units base --clock-control none --log-file "$seen" \
        --metrics gpu__time_duration.sum,dram__bytes_read.sum \
        "$build/bin/tessera" bench "$folder" --backend cuda --batch "$tokens" --prefill none \
        --steps 3 && python3 tests/oracle/kernels.py "$seen"
}

run_kernels() {
    local folder=$scratch/tessera-kernels-$$ tokens
    PATH=$PATH:/usr/local/cuda/bin
    if ! command -v ncu >/dev/null; then
        echo "kernels: left out, there is no ncu"
        return
    fi
    "$build/bin/make_checkpoint" --shape qwen3-30b-a3b --layers 4 --out "$folder" \
        --precision experts=nvfp4,fp8 >/dev/null
    for tokens in 1 32; do
        step "kernels.$tokens" profile "$folder" "$tokens"
        grep -A99 '^memory reads' "$log/kernels.$tokens"
    done
    rm -rf "$folder"
}

wants() {
    [ "$part" = every ] || [ "$part" = "$1" ]
}

run_all() {
    card=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null | head -n 1)
    if [ -z "$card" ]; then
        echo "gpu.sh: nvidia-smi shows no GPU" >&2
        exit 1
    fi
    mkdir -p "$log"
    wants tests && run_tests
    wants fixtures && run_fixtures
    wants bits && run_bits
    wants commands && run_commands
    if wants two && [ "$(nvidia-smi --list-gpus | wc -l)" -ge 2 ]; then
        run_two
    fi
    if [ "${SHARED:-no}" = yes ]; then
        run_shared
    fi
    wants bench && run_bench
    wants kernels && run_kernels
    wants models && run_models
    wants disk && step disk load_from "$disk"
    wants sanitize && run_sanitizers
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
