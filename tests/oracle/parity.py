#!/usr/bin/env python3
"""How near logits come to those that transformers gave, for devices that compute in 16 bits.

parity.py EXPECTED GIVEN MODE [BESIDE]   files of `tessera score`; MODE: weight_only, declared or hopper

Prints, over all positions of all sequences: the cosine of log-probabilities and that of logits
around their mean (mean and worst), the share of equal first choices, and the mean divergence.
Exit code 1 when a mean cosine is below what transformers itself reaches in BF16. BESIDE has logits
of exact arithmetic over the same rounded cache: what is given may be as far off again, and no more,
since it rounds as often again: queries and weights of attention beside keys and values.
"""

import array
import json
import math
import struct
import sys

LOG_PROB_LEAST = 0.9999
CENTRED_LEAST = {"weight_only": 0.9998, "declared": 0.999, "hopper": 0.999}


def read(path):
    """{name: rows of floats} of a safetensors file's matrices of F32."""
    with open(path, "rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
        body = file.read()
    found = {}
    for name, tensor in header.items():
        if name == "__metadata__" or tensor["dtype"] != "F32" or len(tensor["shape"]) != 2:
            continue
        first, last = tensor["data_offsets"]
        values = array.array("f", body[first:last])
        width = tensor["shape"][1]
        found[name] = [values[i : i + width] for i in range(0, len(values), width)]
    return found


def log_softmax(row):
    most = max(row)
    total = most + math.log(sum(math.exp(x - most) for x in row))
    return [x - total for x in row]


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b))
    return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def centred(row):
    mean = sum(row) / len(row)
    return [x - mean for x in row]


def compare(expected, given):
    """(log-prob cosine, centred cosine, same first choice, divergence) of one position."""
    p, q = log_softmax(expected), log_softmax(given)
    same = max(range(len(p)), key=p.__getitem__) == max(range(len(q)), key=q.__getitem__)
    divergence = sum(math.exp(x) * (x - y) for x, y in zip(p, q))
    return cosine(p, q), cosine(centred(expected), centred(given)), float(same), divergence


def positions(expected, path, mode):
    """What `compare` says of every position of a file, as columns."""
    rows = []
    for name, answers in read(path).items():
        wanted = expected[name.replace("logits.", f"logits.{mode}.")]
        if len(wanted) != len(answers):
            sys.exit(f"{name}: {len(answers)} positions, expected {len(wanted)}")
        rows += [compare(list(w), list(g)) for w, g in zip(wanted, answers)]
    if not rows:
        sys.exit(f"{path}: no logits")
    return [list(column) for column in zip(*rows)]


def main():
    expected, mode = read(sys.argv[1]), sys.argv[3]
    columns = positions(expected, sys.argv[2], mode)
    log_prob, around, same, divergence = (sum(column) / len(column) for column in columns)
    least = [LOG_PROB_LEAST, CENTRED_LEAST[mode]]
    beside = ""
    if len(sys.argv) > 4:
        exact = [sum(column) / len(column) for column in positions(expected, sys.argv[4], mode)]
        least = [min(l, 1 - 2 * (1 - e)) for l, e in zip(least, exact)]
        beside = f"  exact beside: {exact[0]:.6f}, {exact[1]:.6f}"
    print(
        f"log-prob {log_prob:.6f} (worst {min(columns[0]):.6f})  centred {around:.6f} "
        f"(worst {min(columns[1]):.6f})  top-1 {same:.3f}  KL {divergence:.1e}{beside}"
    )
    return 0 if log_prob >= least[0] and around >= least[1] else 1


if __name__ == "__main__":
    sys.exit(main())
