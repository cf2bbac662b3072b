#!/bin/bash
# From a fresh Debian 12 or Ubuntu 24.04 to answers of the demo model on four ranks: installs what is
# missing, builds, runs. A second time it only runs.
#
#     quickstart.sh                       answers some questions
#     quickstart.sh --serve [OPTION...]   starts the server, asks it one, serves until it is stopped;
#                                         options of tessera serve, such as --port 8001
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/packages.sh
. deploy/mpi.sh

build=build/release
model=tests/data/demo-mixed

serve=no
if [ "${1:-}" = --serve ]; then
    serve=yes
    shift
elif [ $# -gt 0 ]; then
    echo "deploy/quickstart.sh [--serve [OPTION of tessera serve...]]" >&2
    exit 2
fi

install_packages $packages_build
if [ $serve = yes ]; then
    install_packages curl
fi

if [ ! -e $build/build.ninja ]; then
    echo "==> Configuring $build"
    cuda=AUTO
    if ! nvidia-smi --list-gpus >/dev/null 2>&1; then
        cuda=OFF # its kernels take minutes to compile, for nobody here
    fi
    cmake --preset release -DTSR_CUDA=$cuda >/dev/null
fi
echo "==> Building $build/bin/tessera ($(nproc) cores)"
cmake --build $build -- --quiet

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# Asks the server at URL, and says how to go on.
ask() {
    local url=$1 body
    body='{"messages": [{"role": "user", "content": "What is 12 + 30?"}], "temperature": 0}'
    cat <<EOF

==> curl $url/v1/chat/completions -H 'Content-Type: application/json' -d '$body'
$(curl -sS --max-time 60 "$url/v1/chat/completions" -H 'Content-Type: application/json' -d "$body")

What runs there is a page at $url. Ctrl-C (or SIGTERM) stops the server, which finishes its answers.

EOF
}

# serve OPTION...: a server with its log, until it ends by itself or is stopped. Its exit code is ours.
serve() {
    local server code=0 url="" stopped
    set -- $build/bin/tessera serve $model --ranks 4 "$@"
    echo "==> $*"
    # In a session of its own, so that Ctrl-C comes to it once.
    setsid "$@" 2> >(exec setsid tee "$folder/log" >&2) &
    server=$!
    trap 'stopped=yes; kill -TERM $server' INT TERM

    while [ -z "$url" ] && kill -0 $server 2>/dev/null; do
        sleep 0.1
        url=$(sed -n 's/.* ready at //p' "$folder/log" 2>/dev/null || true)
    done
    [ -z "$url" ] || ask "$url"
    while
        stopped=no code=0
        wait $server || code=$?
        [ $stopped = yes ]
    do :; done
    return $code
}

if [ $serve = yes ]; then
    serve "$@"
    exit
fi

questions=(
    "What is 12 + 30?"
    "Sort these numbers: 58, 94, 20, 18, 79, 42"
    "Spell the word ladder."
    "What day is 10 days after Friday?"
    "Write 73 in Roman numerals."
    "Tell me a story about a fox and a lantern."
)
for i in "${!questions[@]}"; do
    printf '{"custom_id": "%s", "body": {"messages": [{"role": "user", "content": "%s"}], "temperature": 0}}\n' \
        "$i" "${questions[i]}"
done >"$folder/questions.jsonl"

run=("$(mpi_of $build)" -n 4 --bind-to none $build/bin/tessera run $model)
echo "==> ${run[*]} --input ... --output ..."
"${run[@]}" --input "$folder/questions.jsonl" --output "$folder/answers.jsonl"

echo
for i in "${!questions[@]}"; do
    answer=$(sed -n 's/.*"custom_id":"'"$i"'".*"content":"\(\([^"\\]\|\\.\)*\)".*/\1/p' "$folder/answers.jsonl")
    printf '  %s\n' "${questions[i]}"
    printf '%b\n' "$answer" | fold -s -w 90 | sed 's/^/      /'
done

cat <<EOF

Ask your own question, on four ranks or alone:

  . deploy/mpi.sh
  ${run[*]} --chat "Which is larger, 559 or 669?"
  $build/bin/tessera run $model --chat "What is the capital of Kenya?"

What the checkpoint holds, and what fits where:

  $build/bin/tessera inspect $model
  $build/bin/tessera plan $model --ranks 8 --target h200
EOF
