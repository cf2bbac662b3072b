"""A Dockerfile as far as ours needs it: its stages, and what .dockerignore keeps from them."""

import dataclasses
import fnmatch
import os
import re

KNOWN = {"ARG", "FROM", "COPY", "RUN", "ENV", "USER", "WORKDIR", "EXPOSE", "ENTRYPOINT", "CMD"}


@dataclasses.dataclass
class Instruction:
    line: int
    name: str
    options: dict
    words: list


@dataclasses.dataclass
class Stage:
    name: str
    base: str
    instructions: list


def read_instructions(text):
    """Instructions with their arguments, which may be continued; --options stand apart."""
    whole, first = "", 0
    for number, line in enumerate(text.split("\n"), 1):
        if line.lstrip().startswith("#") or (not whole and not line.strip()):
            continue
        first = first if whole else number
        whole += line
        if whole.endswith("\\"):
            whole = whole[:-1]
            continue
        name, *words = whole.split()
        options = {}
        while words and words[0].startswith("--"):
            key, _, value = words.pop(0).partition("=")
            options[key] = value
        yield Instruction(first, name, options, words)
        whole = ""


def substitute(word, values):
    return re.sub(r"\$\{(\w+)\}", lambda match: values[match.group(1)], word)


def read_stages(text, arguments=()):
    """The stages, with ARGs put in: given ones before those that the file presets."""
    given = dict(arguments)
    global_values, values, stages = {}, {}, []
    for instruction in read_instructions(text):
        inside = bool(stages) and instruction.name != "FROM"
        scope = values if inside else global_values
        if instruction.name == "ARG":
            key, _, preset = instruction.words[0].partition("=")
            scope[key] = given.get(key, preset or global_values.get(key, ""))
            continue
        instruction.words = [substitute(word, scope) for word in instruction.words]
        if instruction.name == "FROM":
            name = instruction.words[2] if len(instruction.words) == 3 else ""
            stages.append(Stage(name, instruction.words[0], []))
            values = {}
        else:
            stages[-1].instructions.append(instruction)
    return stages


class Ignored:
    """The rules of .dockerignore: the last that fits a path or a folder around it decides."""

    def __init__(self, text):
        lines = [line.strip() for line in text.split("\n")]
        self.rules = [line for line in lines if line and not line.startswith("#")]

    def __call__(self, path):
        parts = path.split("/")
        around = ["/".join(parts[: i + 1]) for i in range(len(parts))]
        ignored = False
        for rule in self.rules:
            if any(fnmatch.fnmatch(folder, rule.lstrip("!")) for folder in around):
                ignored = not rule.startswith("!")
        return ignored


def context(root):
    """Every file that an image may be built from, by its path below `root`."""
    with open(os.path.join(root, ".dockerignore"), encoding="utf-8") as file:
        ignored = Ignored(file.read())
    for folder, _, files in os.walk(root):
        for file in files:
            path = os.path.relpath(os.path.join(folder, file), root)
            if not ignored(path):
                yield path
