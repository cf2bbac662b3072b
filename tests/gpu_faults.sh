#!/bin/bash
# One of as many ranks as there are GPUs, two at least, that dies or stops, while weights are loaded, in
# prefill and in decode: how long it takes until all processes are gone, the exit code, the rank that
# is named, and whether the GPUs are free again. Exit code 1 when a case takes longer than its limit, names nobody, or
# leaves something behind.
#
#   tests/gpu_faults.sh BUILD SCRATCH [SIGNAL.WHEN ...]     e.g. STOP.load; all six by default
set -uo pipefail

build=$1
model=$2/tessera-faults-$$
cases=" ${*:3} "
log=$(mktemp)
ranks=$(nvidia-smi --list-gpus | wc -l)
failed=0
trap 'rm -rf "$model" "$log"' EXIT

"$build/bin/make_checkpoint" --shape qwen3-30b-a3b --layers 12 --precision experts=nvfp4,fp8 \
    --out "$model" >"$log" 2>&1 || {
    cat "$log"
    exit 1
}

# The process of rank 1 of our job.
rank_1() {
    local process
    for process in $(pgrep -x tessera); do
        if tr '\0' '\n' <"/proc/$process/environ" 2>/dev/null |
            grep -qx 'OMPI_COMM_WORLD_RANK=1'; then
            echo "$process"
        fi
    done
}

# Whether a line with that text comes within 60 s.
said() {
    local i
    for ((i = 0; i < 600; i++)); do
        grep -q "$1" "$log" && return 0
        sleep 0.1
    done
    return 1
}

# fault WHEN SIGNAL MARK LIMIT_S BENCH-OPTION...: the mark is what the job says just before.
fault() {
    local when=$1 signal=$2 mark=$3 limit=$4 job victim code begin took named left result=passed
    shift 4
    case "$cases" in
    *" $signal.$when "* | "  ") ;;
    *) return ;;
    esac
    mpirun --bind-to none -n "$ranks" "$build/bin/tessera" bench "$model" --backend cuda \
        --step-timeout 5 --init-timeout 10 "$@" >"$log" 2>&1 &
    job=$!
    said "$mark" || result=FAILED
    sleep 0.3
    victim=$(rank_1)
    begin=$(date +%s%N)
    kill -s "$signal" "$victim" || result=FAILED
    wait "$job"
    code=$?
    for ((i = 0; i < 300; i++)); do
        pgrep -x tessera >/dev/null || break
        sleep 0.1
    done
    took=$((($(date +%s%N) - begin) / 1000000))
    named=$(grep -iE 'rank 1|signal' "$log" | head -n 1 | cut -c1-110)
    left=$(nvidia-smi --query-compute-apps=pid --format=csv,noheader | wc -l)
    if [ "$code" = 0 ] || [ -z "$named" ] || [ "$left" != 0 ] || [ "$took" -gt $((limit * 1000)) ]; then
        result=FAILED
    fi
    [ "$result" = passed ] || failed=1
    printf '%-8s %-5s %-7s code %3d after %5d ms, %d left on GPUs: %s\n' "$when" "$signal" "$result" \
        "$code" "$took" "$left" "$named"
    [ "$result" = passed ] || tail -n 5 "$log"
    pkill -KILL -x tessera
}

long=$(printf '16384,%.0s' {1..32})
for signal in KILL STOP; do
    limit=5
    [ "$signal" = STOP ] && limit=20
    fault load "$signal" 'ranks of cuda' "$limit" --batch none --prefill 4096
    fault prefill "$signal" 'prefill 1x16384' "$limit" --batch none --prefill "${long%,}"
    fault decode "$signal" 'weights' "$limit" --batch 32 --prefill none --steps 4096 --context 8192
done
exit "$failed"
