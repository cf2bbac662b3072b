#!/bin/bash
# lint.sh format|tidy|dialect|planted BUILD [JOBS]
#
# format: every source is as clang-format leaves it. tidy: clang-tidy has nothing to say about any
# source that BUILD compiles. dialect: nor has dialect.q, run by clang-query. What tidy or dialect
# has seen once is not looked at again until the file, a header it includes, or the rules change;
# BUILD/tidy and BUILD/dialect remember. planted: dialect finds what planted.c says of itself.
set -u
kind=$1
build=$2
jobs=${3:-2}
cd "$(dirname "$0")/../.." || exit 1
rules=tests/house/dialect.q
once=$build/once
export build rules once

sources() {
    find comm kernels launch proto runtime tests -name data -prune -o \
        -type f \( -name '*.c' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' \) -print | sort
}

# Only what is compiled: the database says how.
compiled() {
    sources | grep '\.c$' | while read -r source; do
        grep -q "\"$PWD/$source\"" "$build/compile_commands.json" && echo "$source"
    done
}

tool() {
    command -v "$1-14" || command -v "$1" || {
        echo "lint.sh: $1 is missing: install $2" >&2
        exit 1
    }
}

# key_of SOURCE RULES: a name for these very bytes, what they include and the rules.
key_of() {
    local needs
    needs=$("$clang" -MM -MG -I. -I"$build" -I"$build/proto" "$1" | tr -d '\\' | tr -s ' ' '\n')
    {
        echo "$needs"
        echo "$needs" | grep -v ':$' | xargs cat "$2" 2>/dev/null
    } | sha256sum | cut -d ' ' -f 1
}

# One source: skipped when these very bytes passed before.
tidy_one() {
    local source=$1 key said
    key=$(key_of "$source" .clang-tidy)
    if [ -e "$build/tidy/$key" ]; then
        return 0
    fi
    said=$("$tidy" --quiet -p "$once" "$source" 2>/dev/null)
    if [ -n "$said" ]; then
        echo "$said"
        return 1
    fi
    touch "$build/tidy/$key"
}

# heard ROOT: what clang-query says, as findings in ROOT's own files. A source or rules that it
# cannot read are findings too, and so is an answer that is missing.
heard() {
    awk -v root="$1/" -v build="$build/" -v asked="$(grep -c '^match ' "$rules")" '
        / note: "(null|const)" binds here/ {
            if (index($1, root) != 1 || index($1, build) == 1)
                next
            split(substr($1, length(root) + 1), place, ":")
            said = "a local that is set once, where it is declared: write const"
            if ($3 == "\"null\"")
                said = "a pointer is tested: write == NULL or != NULL"
            print place[1] ":" place[2] ": " said
        }
        /^[0-9]+ match(es)?\.$/ { answered++ }
        /^[^ ]+: (fatal )?error: / || /^(fatal )?error: / || /^[0-9]+:[0-9]+: / { print }
        END {
            if (answered != asked)
                print "lint.sh: clang-query answered " answered + 0 " of " asked " rules"
        }' | sort -u
}

# clang-query under the rules; what gcc is told and clang does not know is no finding.
query_with() {
    "$query" --extra-arg=-Wno-unknown-warning-option -f "$rules" "$@" 2>&1
}

dialect_one() {
    local source=$1 key said
    set -o pipefail
    key=$(key_of "$source" "$rules")
    if [ -e "$build/dialect/$key" ]; then
        return 0
    fi
    if said=$(query_with -p "$once" "$source" | heard "$PWD") && [ -z "$said" ]; then
        touch "$build/dialect/$key"
        return 0
    fi
    echo "${said:-$source: clang-query failed}"
    return 1
}

# Every line of planted.c that names a rule at its end is found by that rule, and no other line is.
planted() {
    local file=tests/house/planted.c
    if ! diff <(grep -noE '// (null|const)$' "$file" | sed 's,:// , ,') \
        <(query_with "$file" -- -std=c11 -O2 | heard "$PWD" |
            sed -E "s,^$file:([0-9]+): .* (const|NULL)\$,\\1 \\2,; s,NULL,null," | sort -n); then
        echo "lint.sh: '<' is planted and was not found, '>' was found and is not planted"
        return 1
    fi
}
export -f key_of tidy_one heard query_with dialect_one

case $kind in
format)
    format=$(tool clang-format clang-format-14) || exit 1
    sources | xargs "$format" --dry-run -Werror
    ;;
tidy)
    tidy=$(tool clang-tidy clang-tidy-14) || exit 1
    clang=$(tool clang clang-14) || exit 1
    export tidy clang
    mkdir -p "$build/tidy"
    python3 tests/house/compile_once.py "$build" "$once" || exit 1
    compiled | xargs -P "$jobs" -I {} bash -c 'tidy_one {}'
    ;;
dialect)
    query=$(tool clang-query clang-tools-14) || exit 1
    clang=$(tool clang clang-14) || exit 1
    export query clang
    mkdir -p "$build/dialect"
    python3 tests/house/compile_once.py "$build" "$once" || exit 1
    compiled | xargs -P "$jobs" -I {} bash -c 'dialect_one {}'
    ;;
planted)
    query=$(tool clang-query clang-tools-14) || exit 1
    planted
    ;;
*)
    echo "lint.sh format|tidy|dialect|planted BUILD [JOBS]" >&2
    exit 2
    ;;
esac
