#!/usr/bin/env python3
"""Jobs of four MPI ranks of which one is broken on purpose, in every way and at every moment.

    fault_matrix.py PROGRAM SHIM DATA [--whole] [--only TEXT] [--step-timeout S] [--keep]

What is checked of each: all processes are gone in time, the launcher's exit code is one that is
documented, a line names the rank, every line of the input that was counted has one answer or one
error, and nothing is left in /dev/shm or of the launcher's folders. The quick subset is what the
suite runs; --whole is all of

    {kill, stop, pause, terminate, digest, version, memory} x
    {start, load, prefill, decode, idle, end} x {rank 0, rank 2}

where a fault can be at all: a version is compared at the start, a digest wherever one is broadcast.
"""

import argparse
import glob
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

RANKS = 4
FAULTS = ["kill", "stop", "pause", "terminate", "digest", "version", "memory"]
MOMENTS = ["start", "load", "prefill", "decode", "idle", "end"]
TARGETS = [0, 2]
QUICK = [
    ("stop", "start", 2), ("kill", "load", 2), ("kill", "decode", 0), ("stop", "load", 2),
    ("stop", "decode", 2), ("stop", "decode", 0), ("stop", "idle", 2), ("pause", "decode", 2), ("terminate", "decode", 2),
    ("terminate", "decode", 0), ("digest", "decode", 2), ("version", "start", 2),
    ("memory", "load", 2),
]
AFTER_DEATH_S = 2.0
PAUSE_MS = 1000
LINES = 24

# What a launcher's code may be: of our own table, and of the signal that ended a rank.
KILLED, TERMINATED = 137, 143


class Wrong(Exception):
    pass


def is_alive(pid):
    """Zombies are gone: the launcher has yet to ask for them."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def leftovers(job):
    """What the launcher and MPI keep of a job while it runs, by its number and the launcher's."""
    kept = glob.glob(f"{tempfile.gettempdir()}/ompi.*/pid.{job.process.pid}")
    for name in glob.glob(job.path("job.*")):
        with open(name) as file:
            number = file.read().strip()
        kept += glob.glob(f"/dev/shm/*.{int(number):x}.*") if number else []
    return sorted(set(kept))


def wait_for(what, condition, seconds=30.0):
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise Wrong(f"no {what} within {seconds:.0f} s")
        time.sleep(0.005)


class Job:
    def __init__(self, args, fault, moment, folder):
        self.args, self.folder, self.moment = args, folder, moment
        self.input, self.output = folder + "/input", folder + "/output"
        self.err = folder + "/err"
        self.writer = None
        # Where each rank stops for a second. What is loaded has its memory before.
        self.point = "started" if (fault, moment) == ("memory", "load") else moment

    def path(self, name):
        return os.path.join(self.folder, name)

    def line(self, number):
        if number == 0:
            body = {"prompt": "a", "max_tokens": 1}
        elif self.moment == "prefill":
            body = {"prompt": "a b c d e f g h " * 100, "max_tokens": 1}
        elif self.moment == "decode":
            body = {"prompt": "a", "max_tokens": 250, "ignore_eos": True}
        else:
            body = {"prompt": "a", "max_tokens": 1}
        return json.dumps({"custom_id": str(number), "body": body}) + "\n"

    def start(self, fault, target):
        lines = 1 if self.moment == "idle" else 20 if self.moment == "end" else LINES
        text = "".join(self.line(n) for n in range(lines))
        if self.moment == "idle":
            os.mkfifo(self.input)
        else:
            with open(self.input, "w") as file:
                file.write(text)
        program, model = self.args.program, self.args.data + "/demo-mixed"
        odd_program = program
        if fault == "version":
            odd_program = self.path("other")
            with open(program, "rb") as file:
                code = file.read()
            version = subprocess.run([program, "--version"], capture_output=True, text=True)
            own = version.stdout.split()[1].encode()
            with open(odd_program, "wb") as file:
                file.write(code.replace(own + b"\0", own[:-1] + b"9\0"))
            os.chmod(odd_program, 0o755)
        other = ""
        if fault == "digest" and self.moment == "load":
            # The same folder by name, another one in the rank's own mounts
            shutil.copytree(model, self.path("model"))
            shutil.copytree(model, self.path("there"))
            with open(self.path("there/model.safetensors"), "r+b") as file:
                start = file.read(64)
                file.seek(start.index(b'"pt"') + 1)
                file.write(b"q")
            model = self.path("model")
            other = f"unshare -m sh -c 'mount --bind {self.path('there')} {model}; exec \"$@\"' sh"
        script = (
            f"echo $PMIX_NAMESPACE >{self.folder}/job.$OMPI_COMM_WORLD_RANK; "
            f"echo $$ >{self.folder}/pid.$OMPI_COMM_WORLD_RANK; "
            f"if [ $OMPI_COMM_WORLD_RANK = {target} ]; then program={odd_program}; "
            f"set -- {other}; else program={program}; fi; "
            f"LD_PRELOAD={self.args.shim} exec \"$@\" $program run {model} --input {self.input} "
            f"--output {self.output} --threads 1 --prefill-chunk 16 --max-num-seqs 8 "
            f"--init-timeout {self.args.init_timeout} --step-timeout {self.args.step_timeout}"
        )
        environment = {
            **os.environ,
            "OMPI_ALLOW_RUN_AS_ROOT": "1",
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
            "FAULT_FOLDER": self.folder,
            "FAULT_PAUSE_MS": str(PAUSE_MS),
            "FAULT_MOMENT": self.point,
        }
        with open(self.err, "w") as err:
            self.process = subprocess.Popen(
                ["mpirun", "-n", str(RANKS), "--oversubscribe", "--bind-to", "none", "sh", "-c",
                 script], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=err,
                env=environment)
        if self.moment == "idle":
            self.writer = open(self.input, "w")
            self.writer.write(text)
            self.writer.flush()

    def has_answered(self):
        try:
            return os.path.getsize(self.output) > 0
        except OSError:
            return False

    def reach(self):
        """Waits until every rank is at the moment."""
        wait_for("process", lambda: all(
            os.path.exists(self.path(f"pid.{r}")) and os.path.getsize(self.path(f"pid.{r}"))
            for r in range(RANKS)))
        self.pids = [int(open(self.path(f"pid.{r}")).read()) for r in range(RANKS)]
        if self.moment in ("start", "load", "end"):
            wait_for(self.point, lambda: self.process.poll() is not None or all(
                os.path.exists(self.path(f"{self.point}.{r}")) for r in range(RANKS)))
        else:
            wait_for("answer", lambda: self.process.poll() is not None or self.has_answered())
            time.sleep(0.3)

    def strike(self, fault, target):
        pid = self.pids[target]
        if fault == "kill":
            os.kill(pid, signal.SIGKILL)
        elif fault == "terminate":
            os.kill(pid, signal.SIGTERM)
        elif fault in ("stop", "pause"):
            os.kill(pid, signal.SIGSTOP)
        elif fault == "memory":
            resource.prlimit(pid, resource.RLIMIT_AS, (1, 1))
        elif fault == "digest" and self.moment != "load":
            open(self.path(f"garble.{target}"), "w").close()
        if fault == "pause":
            time.sleep(1.0)
            os.kill(pid, signal.SIGCONT)

    def finish(self, seconds):
        """Time from now until every process is gone."""
        began = time.monotonic()
        everybody = self.pids + [self.process.pid]
        if self.writer is not None and self.fault_ends_nothing:
            self.writer.close()
        while time.monotonic() - began < seconds:
            if self.process.poll() is not None and not any(map(is_alive, everybody)):
                return time.monotonic() - began
            time.sleep(0.005)
        return None

    def end(self):
        if self.writer is not None and not self.writer.closed:
            try:
                self.writer.close()
            except OSError:
                pass
        for pid in getattr(self, "pids", []):
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def answers(self):
        """custom_id of every whole line of output; fails on half of one and on two of one."""
        if not os.path.exists(self.output):
            return None
        with open(self.output) as file:
            text = file.read()
        if text and not text.endswith("\n"):
            raise Wrong("half a line of output")
        ids = [json.loads(line)["custom_id"] for line in text.splitlines()]
        if len(set(ids)) != len(ids):
            raise Wrong("a line is answered twice")
        return len(ids)


def can_be(fault, moment):
    if fault == "version":
        return moment == "start"
    return fault != "digest" or moment != "end"


def expected_end(args, fault, moment):
    """Seconds until all is gone, and the codes that are right."""
    if fault == "pause":
        return 60.0, {0}
    if fault == "kill":
        return AFTER_DEATH_S, {KILLED}
    if fault == "terminate":
        return AFTER_DEATH_S, {TERMINATED} if moment != "end" else {TERMINATED, 0}
    if fault == "stop":
        # A step's timeout keeps two seconds for ending, where it has ten
        patience = args.init_timeout if moment in ("start", "load") else \
            args.step_timeout - min(args.step_timeout / 5, 2)
        if moment == "end":
            patience = max(patience, 5)
        pause = PAUSE_MS / 1000 if moment in ("start", "end") else 0
        return patience + pause + 2.0, {6} if moment == "start" else {8}
    if fault == "memory":
        # While MPI starts it is MPI that fails, with a code of its own. Once weights are there a
        # step takes no memory, so that little can fail.
        return 60.0, {2, 6, 11} if moment == "start" else {11} if moment == "load" else {0, 11}
    return 5.0, {3} if moment == "load" else {10}


def resume(args, job):
    """Who is killed cannot write: its answers are kept, and the rest is what --resume is for."""
    subprocess.run([args.program, "run", args.data + "/demo-mixed", "--input", job.input,
                    "--output", job.output, "--resume", "--log-level", "error"], check=True)
    return job.answers()


def said(job):
    """The line that says what is wrong."""
    with open(job.err, errors="replace") as file:
        lines = file.read().splitlines()
    ours = [l for l in lines if l.startswith("tessera:") and "error" in l]
    theirs = [l for l in lines if "exited on signal" in l or "  Process name: [[" in l]
    return ours, theirs


def try_one(args, fault, moment, target):
    folder = tempfile.mkdtemp(prefix="tessera-fault-")
    struck = target
    job = Job(args, fault, moment, folder)
    seconds, codes = expected_end(args, fault, moment)
    job.fault_ends_nothing = fault in ("pause", "memory")
    wrong, took, lines, code = [], None, None, None
    ours, theirs = [], []
    try:
        job.start(fault, target)
        job.reach()
        job.strike(fault, target)
        took = job.finish(max(seconds + 15, 20))
        code = job.process.poll()
        ours, theirs = said(job)
        lines = job.answers()
        if took is None:
            wrong.append("processes are left")
        elif took > seconds:
            wrong.append(f"took more than {seconds:.1f} s")
        if code not in codes:
            wrong.append(f"exit code is none of {sorted(codes)}")
        # What rank 0 sends in pieces is found wrong by whoever reads it.
        anybody = fault == "digest" and target == 0 and any("digest" in l for l in ours)
        if code != 0 and not anybody and not any(names(l, target) for l in ours + theirs):
            wrong.append("no line names the rank")
        if (fault, target) == ("kill", 0) and moment in ("prefill", "decode"):
            lines = resume(args, job)
        wanted = LINES if moment in ("prefill", "decode") else 20 if moment == "end" else \
            1 if moment == "idle" else 0 if code != 0 else LINES
        if (lines or 0) != wanted and not (code != 0 and moment in ("start", "load")):
            wrong.append(f"{lines} of {wanted} lines are accounted for")
    except Wrong as e:
        wrong.append(str(e))
    finally:
        job.end()
    time.sleep(0.05)
    left = leftovers(job)
    if left:
        wrong.append("left behind: " + ", ".join(left))
    ours = [l for l in ours if "error:" in l] or ours
    if fault == "digest" and target == 0:
        target = next((r for r in range(RANKS) if any(names(l, r) for l in ours)), target)
    line = next((l for l in ours + theirs if names(l, target)), (ours + theirs + [""])[0])
    print(f"| {fault} | {moment} | {struck} | {'-' if took is None else f'{took:.1f}'} | {code} | "
          f"{lines} | {line[:150]} | {'; '.join(wrong) or 'ok'} |", flush=True)
    if wrong and args.keep:
        print("kept:", folder)
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return not wrong


def names(line, rank):
    """Whether a line names the rank: as its speaker, or as the one that is missing."""
    return any(text in line for text in (f"[rank {rank}]", f"rank {rank} ", f"rank {rank}:",
                                         f"rank {rank},", f",1],{rank}]"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("program")
    parser.add_argument("shim")
    parser.add_argument("data")
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--only", default="", help="fault, moment or fault-moment-rank")
    parser.add_argument("--step-timeout", type=int, default=3)
    parser.add_argument("--init-timeout", type=int, default=4)
    parser.add_argument("--keep", action="store_true", help="folders of what went wrong")
    args = parser.parse_args()
    args.program, args.shim = os.path.abspath(args.program), os.path.abspath(args.shim)
    args.data = os.path.abspath(args.data)

    cases = [(f, m, t) for f in FAULTS for m in MOMENTS for t in TARGETS if can_be(f, m)]
    if args.only:
        cases = [c for c in cases if args.only in (c[0], c[1], "-".join(map(str, c)))]
    elif not args.whole:
        cases = QUICK
    print("| fault | moment | rank | seconds | exit code | lines | said | verdict |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    failed = sum(not try_one(args, *case) for case in cases)
    print(f"{len(cases)} jobs, {failed} of them wrong")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
