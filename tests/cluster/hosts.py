"""Hosts on one machine: each a set of namespaces with a name, a network and a /dev/shm of its own.

            +------ switch: a namespace with a bridge ------+
    port0   |  port1          port2          port3          |
      |         |               |              |
    eth0      eth0            eth0           eth0
    node0     node1           node2          node3         10.77.0.1 to 10.77.0.4

mpirun comes from one to the others by ssh where there is an sshd, which each host then runs, else by an
agent that enters the namespaces with as little of an environment as ssh would give.
"""

import ctypes
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/bin:/usr/local/sbin")
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"


class NoHosts(Exception):
    """They cannot be made here; says why."""


def holder(name, kinds):
    """A process that keeps namespaces alive: (process, words that run a command in them)."""
    script = f"hostname {name} && mount -t tmpfs none /dev/shm && echo there && exec sleep 1000000"
    if "--mount" not in kinds:
        script = "echo there && exec sleep 1000000"
    process = subprocess.Popen(
        ["unshare", *kinds, "sh", "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    if process.stdout.readline() != "there\n":
        process.kill()
        raise NoHosts(process.communicate()[1].strip() or "no namespaces")
    return process, ["nsenter", "-t", str(process.pid), "--root", "--wd", *kinds]


def do(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise NoHosts(f"{' '.join(command)}: {done.stderr.strip()}")


class Hosts:
    def __init__(self, count, folder):
        self.folder = pathlib.Path(folder)
        self.names = [f"node{i}" for i in range(count)]
        self.holders = []
        self.enter = []
        self.switch = []
        self.servers = {}
        if os.geteuid() != 0:
            raise NoHosts("only root can make them")
        for tool in ("unshare", "nsenter", "ip", "mpirun"):
            if shutil.which(tool) is None:
                raise NoHosts(f"{tool} is missing")
        try:
            self.make()
        except NoHosts:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *rest):
        self.close()

    def make(self):
        process, self.switch = holder("switch", ["--net"])
        self.holders.append(process)
        do([*self.switch, "ip", "link", "add", "bridge0", "type", "bridge"])
        do([*self.switch, "ip", "link", "set", "bridge0", "up"])
        for i, name in enumerate(self.names):
            process, enter = holder(name, ["--net", "--uts", "--ipc", "--mount"])
            self.holders.append(process)
            self.enter.append(enter)
            port = f"port{i}"
            do([*self.switch, "ip", "link", "add", port, "type", "veth", "peer", "name", "eth0",
                "netns", str(process.pid)])
            do([*self.switch, "ip", "link", "set", port, "master", "bridge0", "up"])
            do([*enter, "ip", "link", "set", "lo", "up"])
            do([*enter, "ip", "addr", "add", f"{self.address(i)}/24", "dev", "eth0"])
            do([*enter, "ip", "link", "set", "eth0", "up"])
            # mpirun waits for a host until its kernel has given the connection up
            do([*enter, "sh", "-c", "echo 3 >/proc/sys/net/ipv4/tcp_retries2"])
        self.write_agent()

    def address(self, i):
        return f"10.77.0.{i + 1}"

    def write_agent(self):
        agent = self.folder / "agent"
        if SSHD is None:
            cases = "".join(
                f"{self.address(i)}) enter='{' '.join(enter)}' ;;\n"
                for i, enter in enumerate(self.enter)
            )
            agent.write_text(
                f'#!/bin/sh\ncase $1 in\n{cases}*) echo "no host $1" >&2; exit 255 ;;\nesac\n'
                f'shift\n$enter env -i PATH={PATH} HOME=/root sh -c "$*" || exit 255\n'
            )
        else:
            key = self.folder / "key"
            do(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)])
            (self.folder / "authorized").write_text((self.folder / "key.pub").read_text())
            pathlib.Path("/run/sshd").mkdir(exist_ok=True)
            for i in range(len(self.names)):
                self.start_server(i)
            agent.write_text(
                f"#!/bin/sh\nexec ssh -i {key} -p 2222 -o StrictHostKeyChecking=no -o LogLevel=ERROR"
                f' -o UserKnownHostsFile=/dev/null -o ConnectTimeout=2 "$@"\n'
            )
        agent.chmod(0o755)

    def start_server(self, i):
        """sshd of a host; again after it was killed."""
        if SSHD is None:
            return
        options = [
            "Port=2222", f"HostKey={self.folder}/key", f"AuthorizedKeysFile={self.folder}/authorized",
            "PidFile=none", "StrictModes=no", "UsePAM=no", "PermitRootLogin=yes",
        ]
        words = [word for option in options for word in ("-o", option)]
        self.servers[i] = self.start(i, [SSHD, "-D", "-f", "/dev/null", *words])
        until = time.monotonic() + 10
        probe = [*self.enter[i], "sh", "-c", "ss -Hltn sport = :2222 | grep -q ."]
        while subprocess.run(probe, capture_output=True).returncode != 0:
            if time.monotonic() > until:
                raise NoHosts(f"sshd does not start on {self.names[i]}")
            time.sleep(0.05)

    def hostfile(self, slots):
        file = self.folder / "hostfile"
        lines = [f"{self.address(i)} slots={slots}\n" for i in range(len(self.names))]
        file.write_text("".join(lines))
        return str(file)

    def environment(self):
        """What mpirun has to know, on whichever host it starts."""
        return dict(
            os.environ,
            PATH=PATH,
            OMPI_ALLOW_RUN_AS_ROOT="1",
            OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
            OMPI_MCA_plm_rsh_agent=str(self.folder / "agent"),
            OMPI_MCA_pml="ob1",
            OMPI_MCA_btl_tcp_if_include="eth0",
            OMPI_MCA_oob_tcp_if_include="eth0",
            OMPI_MCA_btl_vader_single_copy_mechanism="none",
            PRTE_MCA_plm_ssh_agent=str(self.folder / "agent"),
            PRTE_MCA_prte_if_include="eth0",
            HWLOC_COMPONENTS="-gl",
        )

    def start(self, i, command, **options):
        """A command on a host."""
        return subprocess.Popen(
            [*self.enter[i], *command], env=self.environment(), start_new_session=True, **options
        )

    def connect(self, i, port, address="127.0.0.1", timeout=60):
        """A socket to a port, its own or another's, as programs of this host have it."""
        libc = ctypes.CDLL(None, use_errno=True)
        with open("/proc/self/ns/net") as here, open(
            f"/proc/{self.holders[i + 1].pid}/ns/net"
        ) as there:
            if libc.setns(there.fileno(), 0) != 0:
                raise OSError(ctypes.get_errno(), "setns")
            try:
                return socket.create_connection((address, port), timeout=timeout)
            finally:
                libc.setns(here.fileno(), 0)

    def link(self, i, state):
        """Takes the host's cable out ("down"), or puts it in again ("up")."""
        do([*self.switch, "ip", "link", "set", f"port{i}", state])
        show = [*self.switch, "bridge", "link", "show", "dev", f"port{i}"]
        while state == "up" and b"forwarding" not in subprocess.run(show, capture_output=True).stdout:
            time.sleep(0.05)
        # from there on kernels take a moment more to find each other again
        for other in range(len(self.names)) if state == "up" else ():
            if other != i:
                self.await_way(i, other)
                self.await_way(other, i)

    def await_way(self, i, other):
        """Until one host reaches another, which is there where it says that nobody listens."""
        until = time.monotonic() + 20
        while True:
            try:
                self.connect(i, 9, self.address(other), 1).close()
                return
            except ConnectionRefusedError:
                return
            except OSError as error:
                if time.monotonic() > until:
                    raise AssertionError(f"{self.names[i]} to {self.names[other]}: {error}") from error
                time.sleep(0.05)

    def processes(self, i):
        """Everything that runs on a host, but what keeps it alive."""
        network = os.readlink(f"/proc/{self.holders[i + 1].pid}/ns/net")
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == self.holders[i + 1].pid:
                continue
            try:
                if os.readlink(entry / "ns/net") == network:
                    found.append(int(entry.name))
            except OSError:
                pass
        return found

    def kill(self, i):
        """Everything that runs on a host dies at once."""
        for pid in self.processes(i):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def close(self):
        for i in range(len(self.enter)):
            self.kill(i)
        for process in self.holders:
            process.kill()
            process.wait()
        for server in self.servers.values():
            server.wait()
