#!/usr/bin/env python3
"""The Debian package: what it holds, what it depends on, what lintian says of it where it is installed.

    package_cases.py CPACK BUILD
"""

import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

FILES = {
    "./usr/bin/tessera",
    "./usr/share/bash-completion/completions/tessera",
    "./usr/share/doc/tessera/README.md",
    "./usr/share/doc/tessera/changelog.Debian.gz",
    "./usr/share/doc/tessera/changelog.gz",
    "./usr/share/doc/tessera/copyright",
    "./usr/share/man/man1/tessera.1.gz",
    "./usr/share/tessera/demo-mixed/model.safetensors",
}
# A program that is given to Debian closes the wish for it.
ELSEWHERE = "initial-upload-closes-no-bugs"


def run(*command, **more):
    return subprocess.run(command, check=True, capture_output=True, text=True, **more).stdout


def linked_packages(program):
    """The packages of the libraries that a program names."""
    needed = re.findall(r"NEEDED +(\S+)", run("objdump", "-p", program))
    where = dict(re.findall(r"^\s*(\S+) => (\S+)", run("ldd", program), re.M))
    for library in needed:
        path = where.get(library, "")
        for file in (path, path.removeprefix("/usr"), "/usr" + path):
            found = subprocess.run(["dpkg", "-S", file], capture_output=True, text=True, check=False)
            if path and found.returncode == 0:
                yield re.split("[:,]", found.stdout)[0]
                break


def check_fields(package, program):
    def field(name):
        return run("dpkg-deb", "--field", package, name).strip()

    assert field("Package") == "tessera"
    assert field("Architecture") == run("dpkg", "--print-architecture").strip()
    assert field("Section") == "science"
    assert "openmpi-bin" in field("Recommends")
    depends = {clause.split()[0] for clause in re.split("[,|] *", field("Depends"))}
    linked = set(linked_packages(program))
    assert any(name.startswith("libopenmpi") for name in depends) and len(linked) > 5, (depends, linked)
    # libevent's symbols may name the whole of it instead of a part
    missing = {name for name in linked - depends if not name.startswith("libevent")}
    assert missing <= {"libgcc-s1", "libm6"}, missing


def check_lint(package):
    said = run("lintian", "--fail-on", "none", package).split("\n")
    said = [line for line in said if line and ELSEWHERE not in line]
    assert said == [], said


def main():
    cpack, build = sys.argv[1:3]
    with tempfile.TemporaryDirectory() as folder:
        run(cpack, "--config", f"{build}/CPackConfig.cmake", "-B", folder, umask=0o077)
        [package] = pathlib.Path(folder).glob("*.deb")
        package = str(package)
        listed = run("dpkg-deb", "--contents", package).split("\n")
        files = {line.split()[5] for line in listed if line and not line.startswith("d")}
        assert FILES <= files, FILES - files
        assert "./usr/share/doc/tessera/LICENSE" not in files
        owners = {line.split()[1] for line in listed if line}
        assert owners == {"root/root"}, owners
        modes = {line.split()[0] for line in listed if line}
        assert modes == {"drwxr-xr-x", "-rwxr-xr-x", "-rw-r--r--"}, modes
        run("dpkg-deb", "--extract", package, f"{folder}/root")
        program = f"{folder}/root/usr/bin/tessera"
        assert ".debug_info" not in run("objdump", "-h", program)
        check_fields(package, program)
        if shutil.which("lintian"):
            check_lint(package)
    return 0


if __name__ == "__main__":
    sys.exit(main())
