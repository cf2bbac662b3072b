#!/bin/bash
# From a fresh Debian 12 or Ubuntu 24.04 to answers of the demo model on four ranks: installs what is
# missing, builds, runs. A second time it only runs.
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/packages.sh
. deploy/mpi.sh

build=build/release
model=tests/data/demo-mixed

install_packages $packages_build

if [ ! -e $build/build.ninja ]; then
    echo "==> Configuring $build"
    cuda=AUTO
    if ! nvidia-smi --list-gpus >/dev/null 2>&1; then
        cuda=OFF # its kernels take minutes to compile, for nobody here
    fi
    cmake --preset release -DTSR_CUDA=$cuda >/dev/null
fi
echo "==> Building $build/bin/tessera ($(nproc) cores)"
cmake --build $build --target tessera -- --quiet

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
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
