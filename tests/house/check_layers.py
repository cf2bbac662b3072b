#!/usr/bin/env python3
"""Who may include whom.

    launch -> runtime -> {comm, kernels, proto} -> runtime/base
    inside runtime: engine -> model -> plan -> checkpoint; synthetic -> plan; text stands alone
    inside launch: client -> serve -> {batch, bench, doctor, gateway, score} -> job -> {http, plan} -> {report, request}
    -> {cli, files, link}

check_layers.py ROOT           lists every violation; exit code 1 when there is one
check_layers.py --self-test    plants violations of each kind in a made-up tree and looks for them
"""

import os
import re
import sys
import tempfile

import tree

BASE = "runtime/base"
PUBLIC = "public"

# Layer -> the layers it may include, and of each PUBLIC headers (below) or those listed here.
ARROWS = {
    BASE: {},
    "comm": {BASE: PUBLIC},
    "kernels": {BASE: PUBLIC},
    "proto": {BASE: PUBLIC},
    "runtime/text": {BASE: PUBLIC},
    "runtime/checkpoint": {BASE: PUBLIC},
    "runtime/plan": {
        "runtime/checkpoint": PUBLIC,
        "comm": PUBLIC,
        "kernels": PUBLIC,
        "proto": PUBLIC,
        BASE: PUBLIC,
    },
    "runtime/synthetic": {"runtime/plan": PUBLIC, "proto": PUBLIC, BASE: PUBLIC},
    "runtime/model": {
        "runtime/plan": PUBLIC,
        "comm": PUBLIC,
        "kernels": PUBLIC,
        "proto": PUBLIC,
        BASE: PUBLIC,
    },
    "runtime/engine": {
        "runtime/model": PUBLIC,
        "runtime/plan": PUBLIC,
        "comm": PUBLIC,
        "kernels": PUBLIC,
        "proto": PUBLIC,
        BASE: PUBLIC,
    },
    "launch": {
        "runtime/engine": PUBLIC,
        "runtime/model": PUBLIC,
        "runtime/plan": PUBLIC,
        "runtime/checkpoint": PUBLIC,
        "runtime/synthetic": PUBLIC,
        "runtime/text": PUBLIC,
        "comm": {"comm.h", "exchange.h"},
        "kernels": {"device.h"},
        "proto": PUBLIC,
        BASE: PUBLIC,
    },
}

# Inside a house of several folders, a folder's storey. What stands on one includes what stands below,
# and never a neighbour; what lies in no folder stands on top.
STOREYS = {
    "kernels/cuda": {
        "device": 0,
        "operands": 1,
        "linear": 2,
        "attention": 3,
        "experts": 3,
        "router": 3,
        "sample": 3,
    },
    "launch": {
        "cli": 0,
        "files": 0,
        "link": 0,
        "report": 1,
        "request": 1,
        "http": 2,
        "plan": 2,
        "job": 3,
        "batch": 4,
        "bench": 4,
        "doctor": 4,
        "gateway": 4,
        "score": 4,
        "serve": 5,
        "client": 6,
    },
}

# Headers that other layers may see; all others are their layer's own. BASE has no private ones.
PUBLIC_HEADERS = {
    "comm": {"comm.h", "exchange.h"},
    "kernels": {"blocks.h", "device.h", "experts.h"},
    "proto": {"admission.h", "plan.h", "serve_wire.h", "step_plan.h", "step_state.h"},
    "runtime/checkpoint": {"checkpoint.h", "module_name.h", "safetensors.h"},
    "runtime/plan": {
        "algos.h",
        "batch.h",
        "byte_count.h",
        "loading.h",
        "modules.h",
        "plan_build.h",
        "precision.h",
        "shapes.h",
        "targets.h",
    },
    "runtime/model": {"model.h"},
    "runtime/engine": {"engine.h", "request.h"},
    "runtime/synthetic": {"synthetic.h"},
    "runtime/text": {"answer_parser.h", "chat_template.h", "detokenizer.h", "guide_maker.h", "stop_strings.h", "tokenizer.h",
                     "tokenizer_config.h", "utf8.h"},
    "launch": set(),
}

# Libraries of others: header (or its beginning) -> the files that may include it.
VENDORS = [
    (r"mpi\.h", r"comm/mpi_world\.c"),
    (r"nccl.*", r"comm/(exchange_)?nccl_?\w*\.(c|cu|cuh|h)"),
    (r"protobuf-c/.*", r"proto/\w+_wire\.c"),
    (r"cuda.*|cublas.*", r"kernels/cuda/.*|comm/(exchange_)?nccl_?\w*\.(c|cu|cuh|h)"),
    (r"\w*mmintrin\.h", r"kernels/cpu/.*"),
    (r"jansson\.h", r"(runtime/(base|checkpoint|synthetic|text)|launch)/.*"),
    (r"pcre2\.h", r"runtime/(checkpoint|text)/.*"),
    (r"utf8proc\.h", r"runtime/text/.*"),
    (r"xxhash\.h", r"proto/.*|runtime/base/file_mark\.c|runtime/engine/prefix\.c"),
    (r"hwloc\.h", r"launch/.*"),
    (r"event2?/.*|event\.h", r"launch/(client|gateway|http|link|serve)/.*"),
    (r"openssl/.*", r"launch/http/http_tls\.c"),
]

# Words of the language that have one home.
WORDS = [(r"\b(?:secure_)?getenv\s*\(", "getenv", r"launch/cli/config\.c")]


def layer_of(path):
    """The layer a file belongs to; None for tests and what is no layer."""
    fitting = [layer for layer in ARROWS if path.startswith(layer + "/")]
    return max(fitting, key=len) if fitting else None


def is_public(layer, header, allowed):
    name = header[len(layer) + 1 :]
    if allowed != PUBLIC:
        return name in allowed
    return layer == BASE or name in PUBLIC_HEADERS[layer]


def place_in(house, path):
    """The folder of a house that a file lies in, and its storey; None for one that has none."""
    folder, inside, _ = path[len(house) + 1 :].partition("/")
    return (folder, STOREYS[house].get(folder)) if inside else ("", len(STOREYS[house]))


def check_storeys(path, header):
    """What is wrong with a file of a house including another of it, or None."""
    for house in STOREYS:
        if not (path.startswith(house + "/") and header.startswith(house + "/")):
            continue
        (above, upper), (below, lower) = place_in(house, path), place_in(house, header)
        for folder, storey in ((above, upper), (below, lower)):
            if storey is None:
                return f"{house}/{folder} is no folder with a storey"
        if above != below and lower >= upper:
            return f"{house}/{above} may not include {house}/{below} ({header})"
    return None


def check_arrow(path, header, exists):
    """What is wrong with `path` including our `header`, or None."""
    mine, theirs = layer_of(path), layer_of(header)
    if header.endswith(".pb-c.h"):
        if re.fullmatch(r"proto/\w+_wire\.c", path):
            return None
        return f"includes generated {header}: only proto/*_wire.c may"
    if not exists(header):
        return f"includes {header}, which is no file from the repository root"
    if mine is None or mine == theirs:
        return check_storeys(path, header)
    if theirs is None:
        return f"includes {header}, which belongs to no layer"
    if theirs not in ARROWS[mine]:
        return f"{mine} may not include {theirs} ({header})"
    if not is_public(theirs, header, ARROWS[mine][theirs]):
        return f"includes {header}, which {theirs} keeps to itself"
    return None


def check_vendor(path, header):
    for pattern, home in VENDORS:
        if re.fullmatch(pattern, header) and not re.fullmatch(home, path):
            return f"includes <{header}>, which only {home} may"
    return None


def check_includes(root, paths):
    known = set(paths)
    for path in paths:
        text = tree.read(root, path)
        for ours, header, line in tree.includes(text):
            if ours:
                wrong = check_arrow(path, header, known.__contains__)
            else:
                wrong = None if layer_of(path) is None else check_vendor(path, header)
            if wrong:
                yield f"{path}:{line}: {wrong}"


def check_words(root, paths):
    for path in paths:
        if layer_of(path) is None:
            continue
        lines = tree.code(tree.read(root, path)).split("\n")
        for number, line in enumerate(lines, 1):
            for pattern, word, home in WORDS:
                if re.search(pattern, line) and not re.fullmatch(home, path):
                    yield f"{path}:{number}: {word} outside {home}"


def check_cycles(root, paths):
    """One line for each header that is part of a circle."""
    edges = {
        path: [h for ours, h, _ in tree.includes(tree.read(root, path)) if ours]
        for path in paths
        if path.endswith((".h", ".cuh"))
    }
    done = set()

    def walk(path, trail):
        if path in trail:
            circle = trail[trail.index(path) :] + [path]
            yield f"{path}: headers include each other in a circle: " + " -> ".join(circle)
            return
        if path in done:
            return
        for header in edges.get(path, []):
            yield from walk(header, trail + [path])
        done.add(path)

    for path in sorted(edges):
        yield from walk(path, [])


def library_layer(name):
    """tsr_plan -> runtime/plan; None for what is no layer's library."""
    short = name[len("tsr_") :]
    for layer in ARROWS:
        if short == layer.rsplit("/", 1)[-1]:
            return layer
    return None


def check_links(root):
    """A layer links what it may include, since that is how it finds the headers."""
    for layer, arrows in ARROWS.items():
        path = layer + "/CMakeLists.txt"
        if not os.path.exists(os.path.join(root, path)):
            continue
        text = re.sub(r"#[^\n]*", "", tree.read(root, path))
        for call in re.finditer(r"target_link_libraries\(([^)]*)\)", text):
            for name in re.findall(r"\btsr_\w+", call.group(1)):
                linked = library_layer(name)
                if linked and linked != layer and linked not in arrows:
                    line = text.count("\n", 0, call.start()) + 1
                    yield f"{path}:{line}: {layer} may not link {name}"


def check(root):
    paths = tree.files(root, tree.SOURCE)
    found = list(check_includes(root, paths))
    found += check_words(root, paths)
    found += check_cycles(root, paths)
    found += check_links(root)
    return found


# A small tree in order, and what to plant into it: file, text, and what must then be said.
ORDERLY = {
    "runtime/base/status.h": "",
    "comm/comm.h": '#include "runtime/base/status.h"\n',
    "comm/comm_ops.h": '#include "comm/comm.h"\n',
    "comm/exchange.h": '#include "comm/comm.h"\n',
    "comm/exchange_nccl.cu": '#include "comm/exchange.h"\n#include <nccl.h>\n',
    "comm/mpi_world.c": '#include "comm/comm_ops.h"\n#include <mpi.h>\n',
    "kernels/blocks.h": '#include "runtime/base/status.h"\n',
    "kernels/ops.h": '#include "kernels/blocks.h"\n',
    "kernels/device.h": "",
    "kernels/cuda/device/device_cuda.cuh": '#include "kernels/device.h"\n#include <cuda.h>\n',
    "kernels/cuda/linear/few_cuda.cuh": '#include "kernels/cuda/device/device_cuda.cuh"\n',
    "kernels/cuda/router/router_cuda.cuh": '#include "kernels/cuda/linear/few_cuda.cuh"\n',
    "kernels/cuda/blocks_cuda.cuh": '#include "kernels/cuda/router/router_cuda.cuh"\n',
    "proto/plan.h": "",
    "proto/plan_wire.c": '#include "proto/plan.pb-c.h"\n#include <protobuf-c/protobuf-c.h>\n',
    "runtime/checkpoint/checkpoint.h": "",
    "runtime/plan/plan_build.h": '#include "runtime/checkpoint/checkpoint.h"\n',
    "runtime/model/model.h": '#include "comm/exchange.h"\n#include "kernels/blocks.h"\n',
    "runtime/engine/engine.h": '#include "runtime/model/model.h"\n',
    "runtime/text/tokenizer.h": "",
    "launch/cli/config.c": 'static char *home(void) { return getenv("HOME"); }\n',
    "launch/job/job.h": '#include "runtime/engine/engine.h"\n#include "comm/comm.h"\n',
    "launch/bench/bench_run.h": '#include "launch/job/job.h"\n',
    "launch/main.c": '#include "launch/bench/bench_run.h"\n',
    "tests/test_comm.c": '#include "comm/comm_ops.h"\n#include <mpi.h>\n',
    "comm/CMakeLists.txt": "target_link_libraries(tsr_comm PUBLIC tsr_base)\n",
}
PLANTED = [
    ("comm/bad.c", '#include "kernels/blocks.h"', "comm may not include kernels"),
    ("comm/bad.c", '#include "runtime/model/model.h"', "comm may not include runtime/model"),
    ("kernels/bad.c", '#include "comm/comm.h"', "kernels may not include comm"),
    ("runtime/base/bad.c", '#include "proto/plan.h"', "runtime/base may not include proto"),
    ("runtime/plan/bad.c", '#include "runtime/model/model.h"', "may not include runtime/model"),
    ("runtime/model/bad.c", '#include "runtime/engine/engine.h"', "may not include runtime/engine"),
    ("runtime/model/bad.c", '#include "runtime/checkpoint/checkpoint.h"', "may not include"),
    ("runtime/text/bad.c", '#include "runtime/checkpoint/checkpoint.h"', "may not include"),
    ("runtime/model/bad.c", '#include "launch/bad.h"\n', "no file"),
    ("runtime/model/bad.c", '#include "comm/comm_ops.h"', "comm keeps to itself"),
    ("launch/job/bad.c", '#include "kernels/blocks.h"', "kernels keeps to itself"),
    ("launch/job/bad.c", '#include "launch/bench/bench_run.h"', "job may not include launch/bench"),
    ("launch/batch/bad.c", '#include "launch/bench/bench_run.h"', "batch may not include launch/bench"),
    ("launch/new/bad.c", '#include "launch/job/job.h"', "launch/new is no folder"),
    ("kernels/cuda/device/bad.cu", '#include "kernels/cuda/linear/few_cuda.cuh"', "device may not include"),
    ("kernels/cuda/experts/bad.cu", '#include "kernels/cuda/router/router_cuda.cuh"', "may not include"),
    ("kernels/cuda/linear/bad.cu", '#include "kernels/cuda/blocks_cuda.cuh"', "linear may not include"),
    ("kernels/cuda/new/bad.cu", '#include "kernels/cuda/linear/few_cuda.cuh"', "cuda/new is no folder"),
    ("runtime/model/bad.c", '#include "kernels/ops.h"', "kernels keeps to itself"),
    ("launch/cli/bad.c", '#include "comm.h"', "no file from the repository root"),
    ("comm/bad.c", "#include <mpi.h>", "only comm/mpi_world"),
    ("comm/bad.c", "#  include <nccl.h>", "only comm/(exchange_)?nccl"),
    ("runtime/engine/bad.c", "#include <protobuf-c/protobuf-c.h>", "only proto/"),
    ("runtime/engine/bad.c", '#include "proto/plan.pb-c.h"', "only proto/*_wire.c"),
    ("kernels/bad.c", "#include <cuda_runtime.h>", "only kernels/cuda"),
    ("runtime/engine/bad.c", 'const char *x = getenv("X");', "getenv outside"),
    ("comm/comm.h", '#include "comm/comm_ops.h"', "in a circle"),
    ("kernels/CMakeLists.txt", "target_link_libraries(tsr_kernels\n PUBLIC tsr_comm)", "not link"),
]
HARMLESS = [
    ("comm/good.c", '/* no #include "kernels/ops.h", and no getenv(1) */\n'),
    ("comm/good.c", 'static const char *text = "getenv(";\n'),
]


def write(root, path, text):
    full = os.path.join(root, path)
    os.makedirs(os.path.dirname(full), exist_ok=True)
    with open(full, "w", encoding="utf-8") as file:
        file.write(text)


def found_in(extra):
    with tempfile.TemporaryDirectory() as root:
        for path, text in {**ORDERLY, **extra}.items():
            write(root, path, text)
        return check(root)


def self_test():
    wrong = [f"orderly tree: {line}" for line in found_in({})]
    for path, text in HARMLESS:
        wrong += [f"harmless: {line}" for line in found_in({path: text})]
    for path, text, expected in PLANTED:
        found = found_in({path: ORDERLY.get(path, "") + text})
        if len(found) != 1 or expected not in found[0]:
            wrong.append(f"{path}: {text!r} gave {found}, expected one with {expected!r}")
    print(f"{len(PLANTED)} planted violations, {len(wrong)} wrong")
    return wrong


def main():
    found = self_test() if sys.argv[1:] == ["--self-test"] else check(sys.argv[1])
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
