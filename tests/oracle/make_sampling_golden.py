#!/usr/bin/env python3
"""Writes tests/data/sampling/rules.txt: what requests with penalties, biases and so on sample.

Written from the documents of vLLM and OpenAI, apart from the kernels, in double. Run from the
repository root:

    python3 tests/oracle/make_sampling_golden.py

A case is numbers apart by blanks, lists with their count in front:

    case seed prompt_tokens min_tokens repetition presence frequency
    text ...; bias ids ...; biases ...; allowed ...; bad words (flat: length, ids, ...); endings ...
    rows: then per row: seed output_index temperature top_p min_p top_k token (-2: none is left)

Logit i of a case is ((i * 7919 + seed * 104729) % 1009) / 128 - 4, of VOCAB ids.
"""
import math
import pathlib
import random

OUT = pathlib.Path("tests/data/sampling/rules.txt")
VOCAB, CASES, ROWS = 96, 60, 8
M32 = 0xFFFFFFFF


def philox(seed, index):
    c = [index & M32, index >> 32, 0, 0]
    k = [seed & M32, seed >> 32]
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b & M32, (a >> 32) ^ c[3] ^ k[1], a & M32]
        k = [(k[0] + 0x9E3779B9) & M32, (k[1] + 0xBB67AE85) & M32]
    return ((c[0] << 32 | c[1]) >> 11) * 2.0 ** -53


def logits_of(seed):
    return [((i * 7919 + seed * 104729) % 1009) / 128 - 4 for i in range(VOCAB)]


def bend(x, c):
    """None stands for minus infinity."""
    prompt, outputs = c["text"][:c["prompt"]], c["text"][c["prompt"]:]
    if c["allowed"]:
        x = [v if i in c["allowed"] else None for i, v in enumerate(x)]
    for word in c["bad"]:
        if len(word) - 1 <= len(outputs) and outputs[len(outputs) - len(word) + 1:] == word[:-1]:
            x[word[-1]] = None
    if len(outputs) < c["min_tokens"]:
        for i in c["endings"]:
            x[i] = None
    for i, b in c["bias"].items():
        x[i] = None if x[i] is None else x[i] + b
    for i, v in enumerate(x):
        if v is not None and i in c["text"]:
            v = v / c["repetition"] if v > 0 else v * c["repetition"]
        if v is not None:
            v -= c["frequency"] * outputs.count(i)
            v -= c["presence"] * (i in outputs)
        x[i] = v
    return x


def sample(x, row):
    left = [(v, i) for i, v in enumerate(x) if v is not None]
    if not left:
        return -2
    left.sort(key=lambda p: (-p[0], p[1]))
    if row["temperature"] == 0:
        return left[0][1]
    left = [(math.exp((v - left[0][0]) / row["temperature"]), i) for v, i in left]
    left = [(p, i) for p, i in left if p >= row["min_p"]]
    if 0 < row["top_k"]:
        left = left[:row["top_k"]]
    if row["top_p"] < 1:
        wanted, kept, total = row["top_p"] * sum(p for p, _ in left), [], 0.0
        for p, i in left:
            kept.append((p, i))
            total += p
            if total >= wanted:
                break
        left = kept
    elif row["top_k"] == 0 or row["top_k"] >= VOCAB:
        left.sort(key=lambda p: p[1])
    target, total = philox(row["seed"], row["index"]) * sum(p for p, _ in left), 0.0
    for p, i in left:
        total += p
        if total > target:
            return i
    return left[-1][1]


def draw_case(r, n):
    some = lambda share: r.random() < share
    ids = lambda most: sorted(r.sample(range(VOCAB), r.randint(1, most)))
    text = [r.randrange(VOCAB // 3) for _ in range(r.randint(1, 40))]
    prompt = r.randint(1, len(text))
    outputs = text[prompt:]
    bad = []
    for _ in range(r.randint(1, 6) if some(0.5) else 0):
        length = r.randint(1, 4)
        tail = outputs[len(outputs) - length + 1:] if some(0.7) and length - 1 <= len(outputs) else None
        bad.append((tail if tail is not None else ids(3)[:length - 1]) + [r.randrange(VOCAB)])
    return {
        "seed": n, "prompt": prompt, "text": text, "bad": bad,
        "min_tokens": r.randint(0, 20) if some(0.5) else 0,
        "endings": ids(30),
        "repetition": r.choice([1.05, 1.5, 0.75]) if some(0.6) else 1.0,
        "presence": r.choice([-1.25, 0.5, 2.0]) if some(0.5) else 0.0,
        "frequency": r.choice([-0.5, 0.25, 1.5]) if some(0.5) else 0.0,
        "bias": {i: r.choice([-100.0, -2.5, 1.75, 6.0]) for i in (ids(20) if some(0.5) else [])},
        "allowed": ids(60 if some(0.7) else 2) if some(0.4) else [],
    }


def draw_row(r):
    some = lambda share: r.random() < share
    return {
        "seed": r.getrandbits(63), "index": r.randrange(1000),
        "temperature": 0.0 if some(0.3) else r.choice([0.5, 1.0, 2.0]),
        "top_p": r.choice([0.3, 0.9]) if some(0.4) else 1.0,
        "min_p": r.choice([0.05, 0.3, 1.0]) if some(0.5) else 0.0,
        "top_k": r.choice([1, 5, 40]) if some(0.4) else 0,
    }


def main():
    r = random.Random(20261128)
    lines = [f"{CASES} {VOCAB}"]
    listed = lambda values: " ".join([str(len(values))] + [str(v) for v in values])
    for n in range(CASES):
        c = draw_case(r, n)
        if n == 0:
            c["allowed"], c["bad"], c["bias"] = [5], [[5]], {}
        flat = [w for word in c["bad"] for w in [len(word)] + word]
        x = bend(logits_of(n), c)
        lines.append(" ".join(str(c[k]) for k in (
            "seed", "prompt", "min_tokens", "repetition", "presence", "frequency")))
        lines.append(" ".join([listed(c["text"]), listed(list(c["bias"])),
                               listed(list(c["bias"].values())), listed(c["allowed"]),
                               listed(flat), listed(c["endings"])]))
        rows = [draw_row(r) for _ in range(ROWS)]
        lines.append(str(ROWS))
        for row in rows:
            lines.append(" ".join(str(v) for v in row.values()) + f" {sample(list(x), row)}")
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text("\n".join(lines) + "\n")


main()
