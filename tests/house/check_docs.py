#!/usr/bin/env python3
"""Whatever the documentation names is there: files, folders, and the headings that links go to.

check_docs.py ROOT            lists every violation; exit code 1 when there is one
check_docs.py --self-test     plants violations of each kind and looks for them
"""

import os
import re
import sys
import tempfile

DOCS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
# A word in backticks that is a path: a known ending or a slash at the end, and a folder in it.
PATH = re.compile(r"`([\w.*-]+(?:/[\w.*-]+)*/|[\w.-]+/[\w./-]+\.(?:c|h|cu|cuh|py|sh|md|cmake|proto|txt|json))`")
LINK = re.compile(r"\]\(([^)\s:]+)\)")
# What a user has, or what is made.
ELSEWHERE = ("models/", "build/")


def documents(root):
    yield from (name for name in DOCS if os.path.exists(os.path.join(root, name)))
    folder = os.path.join(root, "docs")
    if os.path.isdir(folder):
        yield from (f"docs/{name}" for name in sorted(os.listdir(folder)) if name.endswith(".md"))


def anchors(text):
    """What a heading is called in a link."""
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def read(root, name):
    with open(os.path.join(root, name), encoding="utf-8") as file:
        return file.read()


def paths(root):
    """Every file and, with a slash behind it, every folder; builds and git's own left out."""
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(("build", ".git"))]
        where = "/" + os.path.relpath(folder, root) + "/"
        yield from (where + name for name in files)
        yield from (f"{where}{name}/" for name in folders)


def check_link(root, name, target):
    path, _, anchor = target.partition("#")
    file = os.path.normpath(os.path.join(os.path.dirname(name), path)) if path else name
    if not os.path.exists(os.path.join(root, file)):
        return f"links to {target}, which is not there"
    if anchor and anchor not in anchors(read(root, file)):
        return f"links to {target}, which has no such heading"
    return None


def check(root):
    found = []
    # A page may name them from a folder that it speaks of.
    there = "\n".join(paths(root)) + "\n"
    for name in documents(root):
        for number, line in enumerate(read(root, name).split("\n"), 1):
            for path in PATH.findall(line):
                if "*" not in path and f"/{path}\n" not in there and not path.startswith(ELSEWHERE):
                    found.append(f"{name}:{number}: names {path}, which is not there")
            for target in LINK.findall(line):
                said = check_link(root, name, target)
                if said:
                    found.append(f"{name}:{number}: {said}")
    return found


GOOD = "# One\n`comm/a.c`, `comm/` and [it](docs/b.md#two-things), `32K/s`, `a.c`\n"
PLANTED = [
    ("comm/a.c", "comm/b.c", "comm/b.c, which is not there"),
    ("`comm/`", "`kernels/`", "kernels/, which is not there"),
    ("docs/b.md#", "docs/c.md#", "c.md#two-things, which is not there"),
    ("#two-things", "#three", "no such heading"),
]


def found_in(text):
    with tempfile.TemporaryDirectory() as root:
        for name, content in (("README.md", text), ("docs/b.md", "## Two things\n"), ("comm/a.c", "")):
            full = os.path.join(root, name)
            os.makedirs(os.path.dirname(full), exist_ok=True)
            with open(full, "w", encoding="utf-8") as file:
                file.write(content)
        return check(root)


def self_test():
    wrong = [f"good page: {line}" for line in found_in(GOOD)]
    for old, new, expected in PLANTED:
        found = found_in(GOOD.replace(old, new))
        if len(found) != 1 or expected not in found[0]:
            wrong.append(f"{new}: gave {found}, expected {expected!r}")
    print(f"{len(PLANTED)} planted violations, {len(wrong)} wrong")
    return wrong


def main():
    found = self_test() if sys.argv[1] == "--self-test" else check(sys.argv[1])
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
