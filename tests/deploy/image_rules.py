#!/usr/bin/env python3
"""What the files of deploy/docker keep to, so that an image builds where nobody here can build one.

    image_rules.py ROOT          lists every violation; exit code 1 when there is one
    image_rules.py --self-test   plants violations and looks for them

image_cases.py runs the same files; this takes no time and no rights.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import dockerfile

DOCKERFILE = "deploy/docker/Dockerfile"
FETCHES = "fetch.sh"
SCRIPTS = ["deploy/*.sh", "deploy/docker/*.sh"]
# Lists of names are split, and what is sourced is looked at where it stands.
PASSED_OVER = "SC2086,SC2206,SC1091,SC2034"


def copied_scripts(stage, files):
    """Where the stage finds which file of ours."""
    found = {}
    for step in stage.instructions:
        if step.name != "COPY" or "--from" in step.options:
            continue
        *sources, place = step.words
        for source in sources:
            if source == ".":
                found.update({place + file: file for file in files})
            else:
                found[place + os.path.basename(source)] = source
    return found


def check_copies(stage, files, stages):
    for step in stage.instructions:
        if step.name != "COPY":
            continue
        if "--from" in step.options:
            if step.options["--from"] not in {other.name for other in stages}:
                yield step.line, f"no stage is called {step.options['--from']}"
            continue
        for source in step.words[:-1]:
            if source != "." and source not in files:
                yield step.line, f"{source} is not there, or .dockerignore keeps it away"


def check_runs(stage, files, root):
    scripts = copied_scripts(stage, files)
    for step in stage.instructions:
        if step.name != "RUN":
            continue
        file = scripts.get(step.words[0])
        if file is None:
            yield step.line, f"runs {step.words[0]}, which is no script that was copied"
        elif not os.access(os.path.join(root, file), os.X_OK):
            yield step.line, f"{file} is not executable"
        fetches = os.path.basename(step.words[0]) == FETCHES
        if fetches == (step.options.get("--network") == "none"):
            yield step.line, f"only {FETCHES} has a network: RUN --network=none"


def check_stages(stages, files, root):
    for stage in stages:
        for step in stage.instructions:
            if step.name not in dockerfile.KNOWN:
                yield step.line, f"{step.name} is not known here"
        named = {other.name for other in stages}
        if stage.base not in named and (":" not in stage.base or stage.base.endswith(":latest")):
            yield 0, f"{stage.base} names no version"
        yield from check_copies(stage, files, stages)
        yield from check_runs(stage, files, root)
    users = [step.words[0] for step in stages[-1].instructions if step.name == "USER"]
    if not users or not users[-1].isdigit() or users[-1] == "0":
        yield 0, "ends as root, or as a user that Kubernetes cannot tell from root: USER NUMBER"


def check_scripts(root):
    for pattern in SCRIPTS:
        for script in sorted(pathlib.Path(root).glob(pattern)):
            commands = [["bash", "-n", script]]
            if shutil.which("shellcheck"):
                commands.append(["shellcheck", "-x", "-s", "bash", "-e", PASSED_OVER, script])
            for command in commands:
                done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
                if done.returncode != 0:
                    yield f"{script}: {done.stdout}{done.stderr}"


def check(root):
    files = set(dockerfile.context(root))
    text = pathlib.Path(root, DOCKERFILE).read_text(encoding="utf-8")
    stages = dockerfile.read_stages(text)
    found = [f"{DOCKERFILE}:{line}: {said}" for line, said in check_stages(stages, files, root)]
    found += [f"{file}: no image needs it: .dockerignore" for file in sorted(files)
              if file.startswith(("build/", ".git/", "tests/")) and "/demo-mixed/" not in file]
    return found + list(check_scripts(root))


GOOD = """ARG BASE=debian:bookworm-slim
FROM ${BASE} AS build
COPY deploy/fetch.sh /setup/
RUN /setup/fetch.sh
COPY . /src/
RUN --network=none /src/deploy/build.sh
FROM ${BASE}
COPY --from=build /out/x /x
USER 1000
"""
PLANTED = [
    ("COPY deploy/fetch.sh", "COPY deploy/none.sh", "deploy/none.sh is not there"),
    ("COPY deploy/fetch.sh", "COPY tests/x.sh", "tests/x.sh is not there"),
    ("RUN /setup/fetch.sh", "RUN apt-get update", "no script"),
    ("RUN /setup/fetch.sh", "RUN --network=none /setup/fetch.sh", "only fetch.sh"),
    ("RUN --network=none /src", "RUN /src", "only fetch.sh"),
    ("deploy/build.sh\n", "deploy/plain\n", "not executable"),
    ("--from=build", "--from=built", "no stage"),
    ("USER 1000", "USER mpiuser", "as root"),
    ("USER 1000\n", "", "as root"),
    ("bookworm-slim", "latest", "no version"),
    ("USER 1000", "USER 1000\nVOLUME /x", "not known"),
]


def found_in(text):
    with tempfile.TemporaryDirectory() as name:
        root = pathlib.Path(name)
        (root / "deploy/docker").mkdir(parents=True)
        (root / "tests").mkdir()
        (root / ".dockerignore").write_text("tests\n")
        for file in ("deploy/fetch.sh", "deploy/build.sh", "deploy/plain", "tests/x.sh"):
            (root / file).write_text("true\n")
            (root / file).chmod(0o644 if file == "deploy/plain" else 0o755)
        (root / DOCKERFILE).write_text(text)
        return check(root)


def self_test():
    wrong = [f"good file: {line}" for line in found_in(GOOD)]
    for old, new, expected in PLANTED:
        found = found_in(GOOD.replace(old, new))
        if not any(expected in line for line in found):
            wrong.append(f"{new!r}: gave {found}, expected {expected!r}")
    print(f"{len(PLANTED)} planted violations, {len(wrong)} wrong")
    return wrong


def main():
    found = self_test() if sys.argv[1] == "--self-test" else check(sys.argv[1])
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
