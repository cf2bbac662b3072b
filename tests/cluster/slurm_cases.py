"""deploy/slurm's scripts, under a Slurm of one node that is started for them: slurm_cases.py TESSERA MODEL

The scripts are submitted as they are; what differs from a cluster (no GPUs, fewer tasks) stands on the
command line of sbatch, where their users have it too.
"""

import http.client
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "serve"))
from server import expect, run, until

SKIPPED = 77
SCRIPTS = pathlib.Path(__file__).parent.parent.parent / "deploy" / "slurm"
HERE = ["--ntasks-per-node=4", "--gpus-per-node=0", "--cpus-per-task=1"]
QUESTIONS = 60

CONFIG = """
ClusterName=tessera
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
AuthType=auth/none
CredType=cred/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SchedulerType=sched/builtin
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
NodeName={host} NodeAddr=127.0.0.1 CPUs=8
PartitionName=all Nodes=ALL Default=YES
"""


class NoSlurm(Exception):
    """It cannot be started here; says why."""


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


class Slurm:
    """slurmctld and slurmd, with their state in a folder."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.daemons = []
        if os.geteuid() != 0:
            raise NoSlurm("only root can start its jobs")
        for tool in ("slurmctld", "slurmd", "sbatch"):
            if shutil.which(tool) is None:
                raise NoSlurm(f"{tool} is missing")
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        config = self.folder / "slurm.conf"
        config.write_text(CONFIG.format(
            host=socket.gethostname().split(".")[0], folder=folder, ports=free_ports(2)
        ))
        self.environment = dict(os.environ, SLURM_CONF=str(config))
        for daemon in ("slurmctld", "slurmd"):
            self.daemons.append(subprocess.Popen(
                [daemon, "-D"], env=self.environment, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            ))
        try:
            until(lambda: "idle" in self.do("sinfo", "-h", "-o", "%T"), "", 30)
        except AssertionError:
            self.close()
            last = (self.folder / "slurmd.log").read_text().splitlines()[-1:]
            raise NoSlurm(f"its node does not become idle: {last}") from None

    def do(self, *command, **environment):
        return subprocess.run(
            [str(word) for word in command], env={**self.environment, **environment}, text=True,
            capture_output=True, timeout=60,
        ).stdout

    def state(self, job):
        """"COMPLETED 0:0", as scontrol shows it."""
        shown = self.do("scontrol", "show", "job", job)
        return " ".join(
            re.search(field, shown)[1] for field in (r"JobState=(\S+)", r"ExitCode=(\S+)")
        )

    def ends(self, job, state, log, seconds=30):
        try:
            until(
                lambda: self.state(job).split()[0] not in ("PENDING", "RUNNING", "COMPLETING"),
                "the job does not end", seconds,
            )
            expect(self.state(job), state)
        except AssertionError as error:
            raise AssertionError(f"{error}: {log.read_text()[-1500:]}") from None

    def close(self):
        for daemon in reversed(self.daemons):
            daemon.terminate()
        for daemon in self.daemons:
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


class Job:
    def __init__(self, slurm, program, model):
        self.slurm = slurm
        self.folder = slurm.folder
        self.settings = {"TESSERA": program, "MODEL": model}

    def submit(self, script, *options, **settings):
        """(number, log) of a job; `options` are the program's."""
        log = self.folder / f"log-{time.monotonic_ns()}"
        said = self.slurm.do(
            "sbatch", "--parsable", *HERE, "-o", log, SCRIPTS / script, *options,
            **self.settings, **settings,
        )
        return said.strip(), log


def a_batch_is_answered_right(job):
    questions = {}
    with open(job.folder / "requests", "w") as file:
        for line in list(open(pathlib.Path(job.settings["MODEL"]) / "grading.jsonl"))[::25][:QUESTIONS]:
            row = json.loads(line)
            questions[row["id"]] = row["expected"]
            body = {"messages": [{"role": "user", "content": row["question"]}], "temperature": 0,
                    "max_tokens": 192}
            file.write(json.dumps({"custom_id": row["id"], "body": body}) + "\n")
    output = job.folder / "answers"
    number, log = job.submit(
        "batch.sbatch", INPUT=str(job.folder / "requests"), OUTPUT=str(output)
    )
    job.slurm.ends(number, "COMPLETED 0:0", log, 60)
    right = 0
    for line in open(output):
        line = json.loads(line)
        text = line["response"]["body"]["choices"][0]["message"]["content"].strip()
        right += text == questions.pop(line["custom_id"])
    expect(questions, {})
    if right < QUESTIONS - 1:
        raise AssertionError(f"{right} of {QUESTIONS} answers are right")


class Server:
    def __init__(self, job):
        port = free_ports(1)[0]
        self.slurm = job.slurm
        self.number, self.log = job.submit("serve.sbatch", "--step-timeout", 5, PORT=str(port))
        until(lambda: self.log.exists() and "endpoint: " in self.log.read_text(), "no endpoint", 20)
        found = re.search(r"endpoint: http://(\S+):(\d+)", self.log.read_text())
        expect(found[2], str(port))
        self.port = port
        until(lambda: self.ask("GET", "/health")[0] == 200, "it does not become ready", 30)

    def ask(self, method, path, body=None):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
            text = json.dumps(body) if body is not None else None
            connection.request(method, path, text, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except OSError:
            return None, b""

    def answers(self):
        status, data = self.ask("POST", "/v1/chat/completions", {
            "messages": [{"role": "user", "content": "What is 12 + 30?"}], "temperature": 0,
        })
        expect(status, 200)
        expect(json.loads(data)["choices"][0]["message"]["content"].strip(), "42")


def a_server_answers_and_drains(job):
    """Asked as a user would, and as Slurm does before the time is over."""
    for how in ([], ["--batch"]):
        server = Server(job)
        server.answers()
        job.slurm.do("scancel", "--signal=USR1", *how, server.number)
        job.slurm.ends(server.number, "COMPLETED 0:0", server.log)


def a_rank_that_dies_ends_the_job(job):
    server = Server(job)
    pids = job.slurm.do("scontrol", "listpids", f"{server.number}.0")
    # PID JOBID STEPID LOCALID GLOBALID
    victims = [line.split()[0] for line in pids.splitlines() if line.split()[-1] == "3"]
    expect(len(victims), 1)
    os.kill(int(victims[0]), 9)
    job.slurm.ends(server.number, "FAILED 137:0", server.log)


def tasks_that_do_not_find_each_other_are_refused(job):
    output = str(job.folder / "none")
    settings = {"INPUT": str(job.folder / "requests"), "OUTPUT": output}
    number, log = job.submit("batch.sbatch", SLURM_MPI_TYPE="none", **settings)
    # the script insists on PMIx
    job.slurm.ends(number, "COMPLETED 0:0", log, 60)
    done = subprocess.run(
        ["srun", "-n", "4", "--mpi=none", job.settings["TESSERA"], "run", job.settings["MODEL"],
         "--chat", "hello"],
        env=job.slurm.environment, text=True, capture_output=True, timeout=60,
    )
    expect(done.returncode, 6)
    if "says that there are 4 processes, but MPI finds 1" not in done.stderr:
        raise AssertionError(done.stderr[-500:])
    number, log = job.submit("batch.sbatch", "--expect-world-size", 5, **settings)
    job.slurm.ends(number, "FAILED 6:0", log)


def main():
    program, model = sys.argv[1:3]
    with tempfile.TemporaryDirectory() as folder:
        try:
            slurm = Slurm(folder)
        except NoSlurm as why:
            print(f"skipped: no Slurm here: {why}")
            return SKIPPED
        try:
            return run(
                [
                    a_batch_is_answered_right,
                    a_server_answers_and_drains,
                    a_rank_that_dies_ends_the_job,
                    tasks_that_do_not_find_each_other_are_refused,
                ],
                Job(slurm, program, model),
            )
        finally:
            slurm.close()


if __name__ == "__main__":
    sys.exit(main())
