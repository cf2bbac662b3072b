"""Root folders in the place of a container engine: layers of an overlay, and processes in namespaces
of their own that see nothing else. For root, on Linux with overlayfs; needs debootstrap, iproute2 and
util-linux.

    base system --+-- layer of a RUN --+-- layer of the next ...      each a folder; the last is written to
"""

import os
import pathlib
import re
import shutil
import subprocess
import tempfile

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# What is started ends with who started it, killed or not.
MORTAL = ["setpriv", "--pdeathsig=KILL"]

# Inside new namespaces: $1 is the root, $2 the lower layers, $3 the upper, $4 overlayfs's own folder.
MOUNT = """
set -e
mount -t overlay overlay -o "lowerdir=$2,upperdir=$3,workdir=$4" "$1"
mkdir -p "$1/proc" "$1/dev"
mount -t proc proc "$1/proc"
mount -t tmpfs -o mode=755 tmpfs "$1/dev"
for node in null:3 zero:5 full:7 random:8 urandom:9; do
    mknod -m 666 "$1/dev/${node%:*}" c 1 "${node#*:}"
done
ln -s /proc/self/fd "$1/dev/fd"
mkdir -m 1777 "$1/dev/shm"
mount -t tmpfs -o size=64m tmpfs "$1/dev/shm"
mkdir -p "$1/run"
ip link set lo up
"""


def mirror():
    """Where this machine's own packages come from."""
    for file in sorted(pathlib.Path("/etc/apt").glob("sources.list*")) + sorted(
            pathlib.Path("/etc/apt/sources.list.d").glob("*")):
        if file.is_file():
            found = re.search(r"^(?:deb .*?|URIs: *)(https?://\S+)", file.read_text(), re.M)
            if found:
                return found.group(1)
    raise SystemExit("no package mirror in /etc/apt")


def base_system(cache, suite):
    """A smallest Debian, made once; its packages and all later ones are kept in `cache`."""
    place = cache / suite
    (cache / "debs").mkdir(parents=True, exist_ok=True)
    if not (place / "etc/debian_version").exists():
        shutil.rmtree(place, ignore_errors=True)
        making = cache / f"{suite}.made"
        shutil.rmtree(making, ignore_errors=True)
        subprocess.run(["debootstrap", "--variant=minbase", f"--cache-dir={cache}/debs", suite, making, mirror()],
                       check=True, stdout=subprocess.DEVNULL)
        making.rename(place)
    return place


class Root:
    """A file system to run commands in, one layer higher than `below`."""

    def __init__(self, folder, name, below, environment=None):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix=f"{name}-", dir=folder))
        for part in ("upper", "work", "root"):
            (self.folder / part).mkdir(mode=0o755)
        self.lower = below
        self.environment = dict(environment or {"PATH": PATH})

    @property
    def layers(self):
        """Highest first, as overlayfs wants them."""
        return [self.folder / "upper", *self.lower]

    def mounted(self, network):
        """The words that run a command with this root mounted, in namespaces of its own."""
        space = [*MORTAL, "unshare", "--mount", "--pid", "--fork", "--kill-child", *([] if network else ["--net"])]
        arguments = [self.folder / "root", ":".join(map(str, self.lower)), self.folder / "upper",
                     self.folder / "work"]
        return space, list(map(str, arguments))

    def run(self, command, network=False, cache=None):
        """`command` as root, as a RUN does. `cache` keeps packages that it fetches."""
        space, arguments = self.mounted(network)
        script = MOUNT
        if cache is not None:
            script += f"""
                cp -n "{cache}"/debs/*.deb "$1/var/cache/apt/archives/"
                mkdir -p "$1/run/debs" && mount --bind "{cache}/debs" "$1/run/debs"
                echo 'DPkg::Post-Invoke {{"cp -n /var/cache/apt/archives/*.deb /run/debs/ || true";}};' \\
                    >"$1/run/keep.conf"
                cat /etc/resolv.conf >"$1/run/resolv.conf"
                touch "$1/etc/resolv.conf" && mount --bind "$1/run/resolv.conf" "$1/etc/resolv.conf"
                export APT_CONFIG=/run/keep.conf
            """
        script += 'root=$1; shift 4; exec chroot "$root" "$@"'
        subprocess.run([*space, "bash", "-c", script, "bash", *arguments, *command], check=True,
                       env=self.environment)


class Container:
    """Processes of one root, with a host name and a network of their own, until it is closed."""

    def __init__(self, folder, name, layers, environment):
        self.root = Root(folder, name, layers, environment)
        self.name = name
        space, arguments = self.root.mounted(False)
        script = MOUNT + 'hostname "$5"; echo up; exec sleep infinity'
        self.process = subprocess.Popen([*space, "--uts", "bash", "-c", script, "bash", *arguments, name],
                                        stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "up\n", name
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        self.pid = int(children.split()[0])

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.process.kill()
        self.process.wait()

    def inside(self, *command, user=1000):
        """The words that run a command in here as the user of that number."""
        home = "/home/mpiuser" if user else "/root"
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--uts", "--net", "--pid", "--"]
        change = ["chroot", f"--userspec={user}:{user}", "--groups=", str(self.root.folder / "root")]
        values = [f"{key}={value}" for key, value in self.root.environment.items()]
        return [*enter, *change, "env", "-i", f"--chdir={home}", f"HOME={home}", *values, *map(str, command)]

    def run(self, *command, user=1000, check=True):
        done = subprocess.run(self.inside(*command, user=user), capture_output=True, text=True, check=False)
        if check and done.returncode != 0:
            raise AssertionError(f"{self.name}: {command}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def write(self, path, text, mode=0o644):
        """A file of root's, as an engine mounts one."""
        self.run("sh", "-c", f'mkdir -p "$(dirname {path})" && printf %s "$1" >{path} && chmod {mode:o} {path}', "sh",
                 text, user=0)


def connect(first, second):
    """A cable between two containers, and their names in both: 10.77.0.1 and 10.77.0.2."""
    ends = [f"tsr{first.pid}", f"tsr{second.pid}"]
    subprocess.run(["ip", "link", "add", ends[0], "type", "veth", "peer", "name", ends[1]], check=True)
    hosts = "127.0.0.1 localhost\n"
    for number, (end, container) in enumerate(zip(ends, (first, second)), 1):
        subprocess.run(["ip", "link", "set", end, "netns", str(container.pid)], check=True)
        enter = ["nsenter", f"--target={container.pid}", "--net", "--"]
        for words in (["link", "set", end, "name", "eth0"], ["addr", "add", f"10.77.0.{number}/24", "dev", "eth0"],
                      ["link", "set", "eth0", "up"]):
            subprocess.run([*enter, "ip", *words], check=True)
        hosts += f"10.77.0.{number} {container.name}\n"
    for container in (first, second):
        container.write("/etc/hosts", hosts)
