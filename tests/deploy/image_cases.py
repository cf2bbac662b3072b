#!/usr/bin/env python3
"""The Dockerfile without a container engine: its steps run in root folders that debootstrap made, and
what they make runs as uid 1000, on two ranks of one container and over sshd on ranks of two. Then the
Debian package, put into such a system and taken out again.

    image_cases.py [CACHE [SUITE]]   as root, with a network; CACHE (~/.cache/tessera-root) keeps
                                     Debian's packages. Exit code 77: one of that is not there
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request

import dockerfile
from roots import PATH, Container, Root, base_system, connect, mirror

SOURCES = pathlib.Path(__file__).resolve().parents[2]
SUITE = "bookworm"
SKIPPED = 77
DEMO = "/usr/share/tessera/demo-mixed"
CHAT = ("--chat", "What is 12 + 30?", "--temperature", "0")
KEYS = "/home/mpiuser/.ssh"


def say(text):
    print(f"==> {time.strftime('%H:%M:%S')} {text}", flush=True)


def copy_from_sources(root, words):
    *sources, place = words
    target = root.folder / "upper" / place.lstrip("/")
    for source in sources:
        files = list(dockerfile.context(SOURCES)) if source == "." else [source]
        for file in files:
            to = target / (file if source == "." else os.path.basename(file))
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(SOURCES / file, to)


def take_step(root, step, stages, cache):
    if step.name == "COPY" and "--from" in step.options:
        source, place = step.words
        shutil.copy(stages[step.options["--from"]].folder / "upper" / source.lstrip("/"),
                    root.folder / "upper" / place.lstrip("/"))
    elif step.name == "COPY":
        copy_from_sources(root, step.words)
    elif step.name == "RUN":
        offline = step.options.get("--network") == "none"
        say("RUN " + " ".join(step.words) + (" (no network)" if offline else ""))
        root.run(step.words, network=not offline, cache=None if offline else cache)
    elif step.name == "ENV":
        root.environment.update(word.split("=", 1) for word in step.words)


def build_image(folder, cache, base):
    """The last stage, with every step taken."""
    text = (SOURCES / "deploy/docker/Dockerfile").read_text()
    stages = {}
    for stage in dockerfile.read_stages(text):
        root = Root(folder, stage.name or "image", [base], {"PATH": PATH})
        for step in stage.instructions:
            take_step(root, step, stages, cache)
        stages[stage.name] = root
    return stages["build"], stages[""]


def one_container_runs(folder, image):
    say("one container, as uid 1000")
    with Container(folder, "alone", image.layers, image.environment) as alone:
        assert alone.run("id", "-un").stdout == "mpiuser\n"
        assert "all 320 linears" in alone.run("tessera", "inspect", DEMO).stdout
        ranks = ("mpirun", "-n", "2", "--bind-to", "none", "--oversubscribe")
        answer = alone.run(*ranks, "tessera", "run", DEMO, *CHAT).stdout
        assert "42" in answer, answer
        server = subprocess.Popen(alone.inside("tessera", "serve", DEMO, "--ranks", "2"), stderr=subprocess.PIPE,
                                  text=True)
        while "ready at http://0.0.0.0:8000" not in (line := server.stderr.readline()):
            assert line, "the server ended"
        health = subprocess.run(["nsenter", f"--target={alone.pid}", "--net", sys.executable, "-c",
                                 "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8000/health').status)"],
                                capture_output=True, text=True, check=True)
        assert health.stdout == "200\n", health
        alone.run("sh", "-c", "kill -TERM $(cat /proc/[0-9]*/stat | awk '$2 == \"(tessera)\" { print $1 }' | head -n 1)")
        assert server.wait(20) == 0, server.stderr.read()
        assert alone.run("sh", "-c", "ls /etc/ssh/ssh_host_*", check=False).returncode != 0


def make_keys(container):
    """A job's key pair, as the operator makes one: id_rsa and its public half, of whatever kind."""
    container.run("ssh-keygen", "-q", "-t", "ecdsa", "-b", "521", "-m", "PEM", "-N", "", "-f", "/tmp/key")
    return container.run("cat", "/tmp/key").stdout, container.run("cat", "/tmp/key.pub").stdout


def mount_keys(container, private, public):
    """As Kubernetes mounts a secret: in a folder that everybody could write to."""
    container.run("mkdir", "-p", "-m", "1777", KEYS, user=0)
    container.write(f"{KEYS}/id_rsa", private)
    container.write(f"{KEYS}/id_rsa.pub", public)
    container.write(f"{KEYS}/authorized_keys", public)


def start_sshd(container):
    sshd = subprocess.Popen(container.inside("/usr/sbin/sshd", "-De", "-f", "/home/mpiuser/.sshd_config"),
                            stderr=subprocess.PIPE, text=True)
    while "listening on 0.0.0.0 port 2222" not in (line := sshd.stderr.readline()):
        assert line, "sshd ended"
    return sshd


def two_containers_run(folder, image):
    say("two containers, over sshd at port 2222")
    with Container(folder, "launcher", image.layers, image.environment) as launcher, \
            Container(folder, "worker", image.layers, image.environment) as worker:
        connect(launcher, worker)
        keys, others = make_keys(launcher), make_keys(worker)
        mount_keys(launcher, *keys)
        mount_keys(worker, *keys)
        sshd = start_sshd(worker)
        assert launcher.run("ssh", "worker", "hostname").stdout == "worker\n"
        launcher.write("/tmp/hostfile", "launcher slots=1\nworker slots=2\n")
        ranks = ("mpirun", "--hostfile", "/tmp/hostfile", "-n", "3", "--bind-to", "none",
                 "--mca", "btl_tcp_if_include", "eth0", "--mca", "oob_tcp_if_include", "eth0")
        assert launcher.run(*ranks, "hostname").stdout.split().count("worker") == 2
        answer = launcher.run(*ranks, "tessera", "run", DEMO, *CHAT)
        assert "42" in answer.stdout and "3 ranks" in answer.stderr, answer
        # the operator's key in, nobody else's, and no host that has not got it
        mount_keys(launcher, *others)
        refused = launcher.run("ssh", "worker", "true", check=False)
        assert refused.returncode == 255 and "verification failed" in refused.stderr, refused
        refused = launcher.run("ssh", "-o", "StrictHostKeyChecking=no", "worker", "true", check=False)
        assert refused.returncode == 255 and "Permission denied" in refused.stderr, refused
        sshd.kill()


def listed(container):
    found = container.run("find", "/", "-xdev", "-not", "-path", "/proc/*", user=0).stdout
    return set(found.split("\n"))


def package_goes_in_and_out(folder, cache, base, build):
    say("the package, installed and removed")
    root = Root(folder, "package", [base], {"PATH": PATH, "DEBIAN_FRONTEND": "noninteractive"})
    shutil.copy(build.folder / "upper/out/tessera.deb", root.folder / "upper/tessera.deb")
    root.run(["apt-get", "update"], network=True, cache=cache)
    root.run(["apt-get", "install", "-y", "/tessera.deb"], network=True, cache=cache)
    with Container(folder, "fresh", root.layers, root.environment) as fresh:
        fresh.run("useradd", "--uid", "1000", "--create-home", "mpiuser", user=0)
        answer = fresh.run("mpirun", "-n", "2", "--bind-to", "none", "--oversubscribe", "tessera", "run", DEMO, *CHAT)
        assert "42" in answer.stdout, answer
        own = set(fresh.run("dpkg", "-L", "tessera", user=0).stdout.split("\n")) - {"", "/."}
        before = listed(fresh)
        assert own <= before | {"/"}, own - before
        fresh.run("dpkg", "--purge", "tessera", user=0)
        after = listed(fresh)
        assert {path for path in after if "tessera" in path} == {"/tessera.deb"}, after
        gone = {path for path in before - after if not path.startswith("/var/lib/dpkg/info/tessera.")}
        assert gone <= own, gone - own
        new = {path for path in after - before if not path.startswith(("/var/lib/dpkg/", "/var/log/"))}
        assert new == set(), new
        assert fresh.run("dpkg", "--audit", user=0).stdout == ""


def missing(suite):
    """What these cases cannot do without, or None."""
    if os.geteuid() != 0:
        return "not root"
    for tool in ("debootstrap", "ip", "unshare", "nsenter", "setpriv"):
        if not shutil.which(tool):
            return f"no {tool}"
    with tempfile.TemporaryDirectory() as folder:
        script = "mkdir a b c d && mount -t overlay overlay -o lowerdir=a,upperdir=b,workdir=c d && mknod d/null c 1 3"
        alone = subprocess.run(["unshare", "--mount", "--uts", "--net", "--pid", "--fork", "sh", "-c", script],
                               cwd=folder, capture_output=True, check=False)
    if alone.returncode != 0:
        return "namespaces, overlayfs or device files are not allowed here"
    try:
        with urllib.request.urlopen(f"{mirror()}/dists/{suite}/InRelease", timeout=20) as answer:
            answer.read()
    except OSError as error:
        return f"Debian's packages are out of reach: {error}"
    return None


def main():
    suite = sys.argv[2] if len(sys.argv) > 2 else SUITE
    reason = missing(suite)
    if reason:
        say(f"skipped: {reason}")
        return SKIPPED
    cache = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "~/.cache/tessera-root").expanduser()
    base = base_system(cache, suite)
    with tempfile.TemporaryDirectory(prefix="tessera-image-") as name:
        folder = pathlib.Path(name)
        folder.chmod(0o755)
        build, image = build_image(folder, cache, base)
        one_container_runs(folder, image)
        two_containers_run(folder, image)
        package_goes_in_and_out(folder, cache, base, build)
    say("all of it passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
