#!/usr/bin/env python3
"""Pages that commands write, opened in headless Chromium: what the browser made of them has the text
and the cells that it should, nothing is fetched, and nothing that is read becomes a page.

    pages.py PROGRAM DATA      exit code 77: no Chromium here
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from html.parser import HTMLParser
from pathlib import Path

SKIPPED = 77


class Page(HTMLParser):
    """Text, and the table cells by their first class."""

    def __init__(self, dom):
        super().__init__()
        self.text = ""
        self.cells = {}
        self.fetched = []
        self.hidden = 0
        self.feed(dom)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.hidden += tag == "style"
        if tag in ("script", "link", "img", "iframe") or "src" in attrs:
            self.fetched.append(tag)
        if tag == "td" and "class" in attrs:
            self.cells.setdefault(attrs["class"].split()[0], []).append(attrs)

    def handle_endtag(self, tag):
        self.hidden -= tag == "style"

    def handle_data(self, data):
        if not self.hidden:
            self.text += " " + data


def browser():
    return next((path for name in ("chromium", "chromium-browser", "google-chrome")
                 if (path := shutil.which(name))), None)


def opened(path, folder):
    """As the browser has it; as it was written where there is none."""
    if browser() is None:
        return Page(path.read_text())
    done = subprocess.run(
        [browser(), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/profile",
         "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    return Page(done.stdout)


def check(condition, what):
    if not condition:
        sys.exit(f"failed: {what}")


def has(page, *texts):
    for text in texts:
        check(text in page.text, f"the page says \"{text}\": {page.text[:2000]}")
    check(not page.fetched, f"nothing is fetched: {page.fetched}")


def titles(page, kind):
    return [cell.get("title", "") for cell in page.cells.get(kind, [])]


def run(program, *arguments, code=0):
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=120, check=False)
    check(done.returncode == code, f"{arguments}: exit code {code}, not {done.returncode}: {done.stderr}")
    return done


def inspected(program, data, folder):
    path = folder / "inspect.html"
    run(program, "inspect", data / "demo-mixed", "--html", path)
    page = opened(path, folder)
    has(page, "Checkpoint", "proven: all 320 linears are stored as declared", "16 experts",
        "NVFP4 100 1.90 MiB", "963 tensors")
    cells = [t for t in titles(page, "c") if t]
    check(len(cells) == 6 * 7, f"6 layers of 7 modules are 42 cells, not {len(cells)}")
    check("layer 3, q_proj: NVFP4" in cells, f"the q of layer 3 is NVFP4: {cells}")
    check(sum("W4A16" in t for t in cells) == 3, "layer 5 has three W4A16_NVFP4")


def odd_names(program, data, folder):
    odd = folder / "<b>&name"
    shutil.copytree(data / "demo-mixed", odd)
    run(program, "inspect", odd, "--html", folder / "odd.html")
    has(opened(folder / "odd.html", folder), "<b>&name")
    before = (odd / "config.json").read_bytes()
    run(program, "inspect", odd, "--html", odd / "config.json", code=2)
    check((odd / "config.json").read_bytes() == before, "a file of the checkpoint stays")
    config = before.replace(b'"num_experts_per_tok": 4', b'"num_experts_per_tok": 400')
    check(config != before, "config.json has num_experts_per_tok 4")
    (odd / "config.json").write_bytes(config)
    run(program, "inspect", odd, "--html", folder / "wrong.html", code=3)
    has(opened(folder / "wrong.html", folder), "not served", "Problems", "num_experts_per_tok")


def number_behind(page, words):
    return float(page.text.split(words, 1)[1].split()[0])


def reported(program, data, folder):
    """Every token but the last of each request meets top-k experts in every layer, on whatever rank."""
    lines = [json.dumps({"custom_id": str(i), "body": {"prompt": "1 + " * (i + 1), "max_tokens": 6,
                                                       "ignore_eos": True, "temperature": 0}})
             for i in range(5)]
    (folder / "in").write_text("\n".join(lines))
    answers = []
    for ranks in (1, 3):
        out, path = folder / f"out{ranks}", folder / f"run{ranks}.html"
        run(program, "run", data / "demo-mixed", "--input", folder / "in", "--output", out,
            "--local-ranks", str(ranks), "--report", path)
        answers.append(sorted(json.loads(line)["response"]["body"]["choices"][0]["text"]
                              for line in out.read_text().splitlines()))
        page = opened(path, folder)
        has(page, f"{ranks} rank", "Time by stage", "Load of every expert", "in the whole run",
            "Precision of every layer")
        check(number_behind(page, "requests ") == 5, "5 requests")
        check(number_behind(page, "output tokens ") == 30, "30 tokens")
        loads = titles(page, "h")
        check(len(loads) == 6 * 16, f"6 layers of 16 experts are 96 cells, not {len(loads)}")
        rows = sum(int(re.search(r": (\d+) rows", load)[1]) for load in loads)
        tokens = number_behind(page, "prompt tokens ") + 30 - 5
        check(rows == tokens * 4 * 6, f"{tokens} tokens, 4 experts, 6 layers: {rows} rows")
        check(len([t for t in titles(page, "c") if t]) == 6 * 7, "42 cells of precision")
        check(len(page.cells["stage"]) >= 7, "stages have rows")
        check(sum("rank" in cell["class"] for cell in page.cells["n"]) == ranks, "ranks have rows")
        pairs = titles(page, "w")
        check(len(pairs) == ranks * (ranks - 1), f"each pair of ranks has a cell: {pairs}")
        check(ranks == 1 or "Waits by pair of ranks" in page.text, "waits have a table")
        check(all(re.fullmatch(r"rank \d waited \d+\.\d ms for rank \d", pair) for pair in pairs), pairs)
    plain = folder / "plain"
    run(program, "run", data / "demo-mixed", "--input", folder / "in", "--output", plain)
    answers.append(sorted(json.loads(line)["response"]["body"]["choices"][0]["text"]
                          for line in plain.read_text().splitlines()))
    check(answers[0] == answers[1] == answers[2], "a watched run answers the same")


def refused(program, data, folder):
    (folder / "in").write_text('{"custom_id": "1", "body": {"prompt": "1", "max_tokens": 1}}\n')
    before = (folder / "in").read_bytes()
    files = ["run", data / "demo-mixed", "--input", folder / "in", "--output", folder / "out"]
    for path, code in (("in", 2), ("out", 1), ("no/such/folder", 1)):
        run(program, *files, "--report", folder / path, code=code)
    check((folder / "in").read_bytes() == before, "what is read stays")


def main():
    program, data = sys.argv[1], Path(sys.argv[2])
    os.environ["NO_COLOR"] = "1"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        inspected(program, data, folder)
        odd_names(program, data, folder)
        reported(program, data, folder)
        refused(program, data, folder)
    if browser() is None:
        print("skipped: no Chromium here; the pages were read as they were written")
        sys.exit(SKIPPED)


main()
