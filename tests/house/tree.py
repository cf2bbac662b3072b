"""The files of this repository that the house rules are about, and what they include."""

import os
import re

SOURCE = (".c", ".h", ".cu", ".cuh")
SKIPPED = {"data", "corpus", "__pycache__"}

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', re.MULTILINE)
COMMENT_OR_TEXT = re.compile(
    r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.DOTALL
)


def files(root, endings):
    """Paths relative to root, sorted; build folders, data and hidden folders left out."""
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = [f for f in folders if f not in SKIPPED and not f.startswith(("build", "."))]
        for name in names:
            if name.endswith(endings):
                found.append(os.path.relpath(os.path.join(folder, name), root))
    return sorted(found)


def read(root, path):
    with open(os.path.join(root, path), encoding="utf-8") as file:
        return file.read()


def includes(text):
    """(ours, name, line) of each include; ours: written with quotes."""
    for match in INCLUDE.finditer(text):
        yield match.group(1) == '"', match.group(2), text.count("\n", 0, match.start()) + 1


def code(text):
    """The text with comments and literals blanked, line by line as it was."""
    return COMMENT_OR_TEXT.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), text)
