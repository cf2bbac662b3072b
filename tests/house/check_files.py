#!/usr/bin/env python3
"""What every file keeps to: its length, its name, no unfinished business, headers that stand alone.

check_files.py ROOT CC CXX            lists every violation; exit code 1 when there is one
check_files.py --self-test CC CXX     plants violations of each kind and looks for them
"""

import concurrent.futures
import os
import re
import subprocess
import sys
import tempfile

import tree

MOST_LINES = 600
TEXTS = tree.SOURCE + (".py", ".sh", ".cmake", ".txt", ".md", ".proto")

# Lists of cases for the tests, as long as it takes.
CASES = "tests/oracle/"

# Names that say nothing about what a file holds.
EMPTY_NAME = re.compile(r"(^|_)(utils?|commons?|helpers?|misc|stuff)(_|$)")
# Spelled in two halves, so that this file passes its own test.
UNFINISHED = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
GUARD = re.compile(r"#ifndef (\w+)\n#define (\w+)\n")

# Headers for one instruction set compile with it, as their sources do.
AVX2 = ["-mavx2", "-mfma", "-mf16c"]
AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni", "-mfma"]
FLAGS = {
    "kernels/cpu/lanes_avx2.h": AVX2,
    "kernels/cpu/lanes_avx512.h": AVX512,
    "kernels/cpu/fp4_avx2.h": AVX2,
    "kernels/cpu/fp4_avx512.h": AVX512,
}

# Not headers but the second half of each file that includes them.
BODIES = {"kernels/cpu/format/format_body.h", "kernels/cpu/format/unquantized_body.h"}


def check_length(path, text):
    lines = text.count("\n")
    counted = path.endswith(tree.SOURCE + (".py", ".sh")) and not path.startswith(CASES)
    if lines > MOST_LINES and counted:
        yield f"{path}: {lines} lines, at most {MOST_LINES}: a part of it wants to be a file"


def check_name(path):
    for part in path.split("/"):
        if EMPTY_NAME.search(part.split(".")[0].lower()):
            yield f"{path}: '{part}' does not say what it holds"


def check_words(path, text):
    for number, line in enumerate(text.split("\n"), 1):
        if UNFINISHED.search(line):
            yield f"{path}:{number}: unfinished: {line.strip()}"


def guard_of(path):
    return "TSR_" + re.sub(r"[^A-Za-z0-9]", "_", path.removeprefix("runtime/")).upper()


def check_guard(path, text):
    if not path.endswith((".h", ".cuh")):
        return
    match = GUARD.search(text)
    if not match or match.group(1) != match.group(2):
        yield f"{path}: no include guard"
        return
    names = {guard_of(path), "TSR_" + re.sub(r"[^A-Za-z0-9]", "_", path).upper()}
    if match.group(1) not in names:
        yield f"{path}: guard {match.group(1)} is not called after the file"


def compile_header(job):
    """The first line a compiler says about a header included twice, or None."""
    root, path, command = job
    text = f'#include "{path}"\n#include "{path}"\n'
    run = subprocess.run(
        command + FLAGS.get(path, []) + ["-I", root, "-fsyntax-only", "-"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode == 0:
        return None
    said = [line for line in run.stderr.split("\n") if "error" in line] or [run.stderr]
    return f"{path}: does not compile alone ({command[0]}): {said[0]}"


def check_headers(root, paths, cc, cxx):
    c = [cc, "-std=c11", "-D_POSIX_C_SOURCE=200809L", "-Wall", "-Wextra", "-Werror", "-xc"]
    cpp = [cxx, "-std=c++17", "-Wall", "-Wextra", "-Werror", "-xc++"]
    headers = [p for p in paths if p.endswith(".h") and not p.startswith("tests/")]
    headers = [p for p in headers if p not in BODIES]
    jobs = [(root, path, command) for path in headers for command in (c, cpp)]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from filter(None, pool.map(compile_header, jobs))


def check(root, cc, cxx):
    found = []
    paths = tree.files(root, TEXTS)
    for path in paths:
        text = tree.read(root, path)
        found += check_length(path, text)
        found += check_name(path)
        found += check_words(path, text)
        found += check_guard(path, text)
    found += check_headers(root, paths, cc, cxx)
    return found


GOOD = "#ifndef TSR_COMM_ROWS_H\n#define TSR_COMM_ROWS_H\n#include <stdint.h>\nint32_t tsr_x(void);\n#endif\n"
PLANTED = [
    ("comm/long.c", "int x;\n" * (MOST_LINES + 1), "at most"),
    ("comm/row_utils.c", "int x;\n", "does not say"),
    ("runtime/common/x.c", "int x;\n", "does not say"),
    ("comm/a.c", "/* TO" + "DO: more */\n", "unfinished"),
    ("tests/a.sh", "# FIX" + "ME\n", "unfinished"),
    ("comm/rows.h", GOOD.replace("#ifndef", "#if 1 //"), "no include guard"),
    ("comm/rows.h", GOOD.replace("COMM", "COM"), "not called after"),
    ("comm/rows.h", GOOD.replace("#include <stdint.h>\n", ""), "alone"),
    ("comm/rows.h", GOOD.replace("tsr_x(void)", "tsr_x(int32_t class)"), "alone"),
]


def found_in(path, text, cc, cxx):
    with tempfile.TemporaryDirectory() as root:
        full = os.path.join(root, path)
        os.makedirs(os.path.dirname(full))
        with open(full, "w", encoding="utf-8") as file:
            file.write(text)
        return check(root, cc, cxx)


def self_test(cc, cxx):
    wrong = [f"good header: {line}" for line in found_in("comm/rows.h", GOOD, cc, cxx)]
    for path, text, expected in PLANTED:
        found = found_in(path, text, cc, cxx)
        if not any(expected in line for line in found):
            wrong.append(f"{path}: gave {found}, expected {expected!r}")
    print(f"{len(PLANTED)} planted violations, {len(wrong)} wrong")
    return wrong


def main():
    if sys.argv[1] == "--self-test":
        found = self_test(sys.argv[2], sys.argv[3])
    else:
        found = check(sys.argv[1], sys.argv[2], sys.argv[3])
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
