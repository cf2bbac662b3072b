#!/usr/bin/env python3
"""The compile database of a build, each source once for each way it is compiled: programs share
sources, and tests/formats compiles whole libraries a second time, which tells a linter nothing new.

    compile_once.py BUILD FOLDER      FOLDER/compile_commands.json
"""

import json
import os
import re
import sys


def main():
    build, folder = sys.argv[1:3]
    with open(os.path.join(build, "compile_commands.json")) as file:
        entries = json.load(file)
    # A file's own library comes before what is compiled from it again
    entries.sort(key=lambda entry: "made_up_format.dir" in entry["command"])
    kept, seen = [], set()
    for entry in entries:
        way = re.sub(r" -o \S+", "", entry["command"])
        again = "made_up_format.dir" in entry["command"] and entry["file"] in seen
        if way in seen or again:
            continue
        seen.update((way, entry["file"]))
        kept.append(entry)
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, "compile_commands.json")
    with open(f"{path}.{os.getpid()}", "w") as file:
        json.dump(kept, file, indent=1)
    os.replace(file.name, path)  # whole, whoever reads it now


main()
