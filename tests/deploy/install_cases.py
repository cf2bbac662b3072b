#!/usr/bin/env python3
"""The program as it is installed, in a prefix of its own and found by PATH alone: it runs, its page
and its completion know every option that it takes, and so do the commands that are written down.

    install_cases.py CMAKE BUILD MPIRUN
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
INSTALLED = {
    "bin/tessera",
    "share/bash-completion/completions/tessera",
    "share/doc/tessera/CHANGELOG.md",
    "share/doc/tessera/LICENSE",
    "share/doc/tessera/README.md",
    "share/doc/tessera/docs/operations.md",
    "share/man/man1/tessera.1.gz",
    "share/tessera/demo-mixed/model.safetensors",
}
OPTION = re.compile(r"--[a-z][a-z-]*")


def run(*command, **more):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, **more)
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


class Installed:
    def __init__(self, prefix):
        self.prefix = prefix
        self.environment = dict(os.environ, PATH=f"{prefix}/bin:{os.environ['PATH']}")

    def run(self, *command):
        return run(*command, env=self.environment, cwd=self.prefix)

    def commands(self):
        found = re.findall(r"^  tessera (\w+)", self.run("tessera", "help"), re.M)
        assert {"inspect", "run", "serve"} <= set(found), found
        return found

    def options(self, command):
        return set(re.findall(r"^  (--[a-z-]+)", self.run("tessera", command, "--help"), re.M))

    def complete(self, *words):
        """What TAB offers behind `words`, the last of which is begun."""
        script = self.prefix / "share/bash-completion/completions/tessera"
        asked = f'. {script}; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _tessera; printf "%s\\n" "${{COMPREPLY[@]}}"'
        return set(self.run("bash", "-c", asked, "bash", *words).split("\n")) - {""}


def it_runs(installed, mpirun):
    heading = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M).group(1)
    assert installed.run("tessera", "--version") == f"tessera {heading}\n"
    demo = "share/tessera/demo-mixed"
    assert "all 320 linears" in installed.run("tessera", "inspect", demo)
    question = ("tessera", "run", demo, "--chat", "What is 12 + 30?", "--temperature", "0")
    alone = installed.run(*question)
    assert "42" in alone, alone
    assert installed.run(mpirun, "-n", "2", "--bind-to", "none", *question) == alone


def page_is_sound(installed):
    """The page has every option and every command, and nobody who reads pages complains."""
    page = installed.prefix / "tessera.1"
    page.write_text(run("gzip", "-dc", installed.prefix / "share/man/man1/tessera.1.gz"))
    assert run("mandoc", "-Tlint", "-Wwarning", page) == ""
    text = run("mandoc", "-Tascii", page)
    text = re.sub(".\x08", "", text)  # bold is a letter struck twice
    for command in installed.commands():
        assert f"tessera {command}" in text, command
        missing = installed.options(command) - set(OPTION.findall(text))
        assert missing == set(), f"{command}: {missing}"
    if shutil.which("man"):
        said = subprocess.run(["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", page], check=True,
                              capture_output=True, env=dict(os.environ, LC_ALL="C.UTF-8", MANWIDTH="80"))
        assert said.stderr == b"", said.stderr


def completion_completes(installed):
    commands = installed.commands()
    assert set(commands) <= installed.complete("tessera", "")
    assert installed.complete("tessera", "ins") == {"inspect"}
    for command in commands:
        assert installed.complete("tessera", command, "--") == installed.options(command), command
    assert installed.complete("tessera", "run", "--log-level", "") == {"error", "warn", "info", "debug"}
    assert installed.complete("tessera", "run", "--log-level", "=", "w") == {"warn"}
    assert installed.complete("tessera", "run", "--prompt", "") == set()
    assert installed.complete("tessera", "inspect", "share/t") == {"share/tessera"}
    assert {"comm", "serve"} <= installed.complete("tessera", "bench", "")
    (installed.prefix / "two words.jsonl").touch()
    assert installed.complete("tessera", "run", "--input", "two") == {"two words.jsonl"}


def written_commands():
    """Command lines of the documentation: which file, and the words."""
    for file in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for block in re.findall(r"^```\w*\n(.*?)^```|`([^`\n]+)`", file.read_text(), re.M | re.S):
            for line in "".join(block).replace("\\\n", " ").split("\n"):
                found = re.search(r"(?:^|\s)tessera ([a-z]+)\b(.*)", line.split(" #")[0])
                if found:
                    yield file.name, found.group(1), found.group(2)


def written_commands_are_known(installed):
    commands = installed.commands()
    options = {command: installed.options(command) for command in commands}
    seen = 0
    for file, command, rest in written_commands():
        if command in ("manual", "completion"):
            continue
        assert command in commands, f"{file}: tessera {command}{rest}"
        unknown = set(OPTION.findall(rest)) - options[command]
        assert unknown == set(), f"{file}: tessera {command}: {unknown}"
        seen += 1
    assert seen > 20, seen


def main():
    cmake, build, mpirun = sys.argv[1:4]
    with tempfile.TemporaryDirectory() as name:
        prefix = pathlib.Path(name) / "prefix"
        run(cmake, "--install", build, "--prefix", prefix)
        files = {str(path.relative_to(prefix)) for path in prefix.rglob("*") if path.is_file()}
        assert INSTALLED <= files, INSTALLED - files
        strange = {file for file in files if not file.startswith(("bin/", "share/"))}
        assert strange == set(), strange
        installed = Installed(prefix)
        it_runs(installed, mpirun)
        page_is_sound(installed)
        completion_completes(installed)
        written_commands_are_known(installed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
