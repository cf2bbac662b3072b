#!/bin/bash
# lint.sh format|tidy BUILD [JOBS]
#
# format: every source is as clang-format leaves it. tidy: clang-tidy has nothing to say about any
# source that BUILD compiles. What tidy has seen once is not looked at again until the file, a header
# it includes, or the rules change; BUILD/tidy remembers.
set -u
kind=$1
build=$2
jobs=${3:-2}
cd "$(dirname "$0")/../.." || exit 1
export build

sources() {
    find comm kernels launch proto runtime tests -name data -prune -o \
        -type f \( -name '*.c' -o -name '*.h' \) -print | sort
}

tool() {
    command -v "$1-14" || command -v "$1" || {
        echo "lint.sh: $1 is missing: install $1-14" >&2
        exit 1
    }
}

# One source: skipped when these very bytes passed before.
tidy_one() {
    local source=$1 needs key said
    needs=$("$clang" -MM -MG -I. -I"$build" -I"$build/proto" "$source" | tr -d '\\' | tr -s ' ' '\n')
    key=$({
        echo "$needs"
        echo "$needs" | grep -v ':$' | xargs cat .clang-tidy 2>/dev/null
    } | sha256sum | cut -d ' ' -f 1)
    if [ -e "$build/tidy/$key" ]; then
        return 0
    fi
    said=$("$tidy" --quiet -p "$build" "$source" 2>/dev/null)
    if [ -n "$said" ]; then
        echo "$said"
        return 1
    fi
    touch "$build/tidy/$key"
}
export -f tidy_one

case $kind in
format)
    format=$(tool clang-format) || exit 1
    sources | xargs "$format" --dry-run -Werror
    ;;
tidy)
    tidy=$(tool clang-tidy) || exit 1
    clang=$(tool clang) || exit 1
    export tidy clang
    mkdir -p "$build/tidy"
    # Only what is compiled: the database says how.
    sources | grep '\.c$' | while read -r source; do
        grep -q "\"$PWD/$source\"" "$build/compile_commands.json" && echo "$source"
    done | xargs -P "$jobs" -I {} bash -c 'tidy_one {}'
    ;;
*)
    echo "lint.sh format|tidy BUILD [JOBS]" >&2
    exit 2
    ;;
esac
