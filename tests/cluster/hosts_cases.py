"""Eight ranks on four hosts, over TCP: hosts_cases.py TESSERA MODEL

The same bytes as one rank; a host whose link is cut and one that dies are named in time, with the exit
code that docs/operations.md has for it; a batch goes on with --resume, and a server that starts its
ranks itself goes on by itself, in the middle of an answer.
"""

import http.client
import json
import pathlib
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "serve"))
from hosts import SSHD, Hosts, NoHosts
from server import expect, run, until

SKIPPED = 77
RANKS = 8
STEP_TIMEOUT = 5
LOST = [205, 255]  # mpirun's, by whether its connection or its ssh ended first


class Job:
    """Commands of one case: the program, its model, hosts and a folder."""

    def __init__(self, hosts, program, model, folder):
        self.hosts = hosts
        self.program = program
        self.model = model
        self.folder = pathlib.Path(folder)
        self.hostfile = hosts.hostfile(slots=2)

    def start(self, *command, **options):
        return self.hosts.start(0, [str(word) for word in command], text=True, **options)

    def mpirun(self, *command):
        launcher = ["mpirun", "-n", RANKS, "--hostfile", self.hostfile, "--bind-to", "none"]
        # no pipe: an ssh that does not know yet that its host is gone would hold it
        with (self.folder / "errors").open("w") as errors:
            return self.start(*launcher, self.program, *command, stderr=errors)

    def batch(self, output, *options):
        return self.mpirun(
            "run", self.model, "--input", self.folder / "requests", "--output", output,
            "--step-timeout", STEP_TIMEOUT, "--log-level", "warn", *options,
        )

    def alone(self, *command):
        subprocess.run([str(w) for w in (self.program, *command)], check=True, capture_output=True)


def ended(job, process, codes, within_s, *said):
    """Its exit code, and what it has said, in time."""
    try:
        process.wait(within_s)
    except subprocess.TimeoutExpired:
        process.kill()
    errors = (job.folder / "errors").read_text()
    if process.wait() not in codes:
        raise AssertionError(
            f"exit code {process.returncode}, expected one of {codes} within {within_s} s: {errors[-1500:]}"
        )
    for text in said:
        if not re.search(text, errors):
            raise AssertionError(f"{text!r} is not said: {errors[-1500:]}")
    return errors


def write_requests(job):
    with open(job.folder / "requests", "w") as file:
        for i in range(12):
            body = {"prompt": f"Tell {i} stories", "max_tokens": 80, "temperature": 0,
                    "ignore_eos": True}
            if i < 4:
                body["max_tokens"] = 8
            file.write(json.dumps({"custom_id": str(i), "body": body}) + "\n")


def answers(path):
    """Text by id, of the lines that have one."""
    found = {}
    for line in open(path):
        line = json.loads(line)
        if line.get("error") is None:
            found[line["custom_id"]] = line["response"]["body"]["choices"][0]["text"]
    return found


def has_begun(batch, output):
    def answered():
        expect(batch.poll(), None)
        return output.exists() and output.stat().st_size > 0

    until(answered, "no answer comes", 60)


def they_give_the_bytes_of_one_rank(job):
    tokens = job.folder / "tokens.json"
    tokens.write_text(json.dumps([[5, 9, 300, 17, 4, 21], list(range(100, 140))]))
    outs = [job.folder / "one", job.folder / "eight"]
    job.alone("score", job.model, "--tokens", tokens, "--out", outs[0])
    errors = ended(
        job, job.mpirun("score", job.model, "--tokens", tokens, "--out", outs[1]), [0], 60,
        r"host node0: ranks 0-1; networks: eth0 10\.77\.0\.1",
        r"host node3: ranks 6-7; networks: eth0 10\.77\.0\.4",
        r"MPI was told to use eth0",
    )
    if outs[0].read_bytes() != outs[1].read_bytes():
        raise AssertionError(f"other bytes than one rank's: {errors[-500:]}")


def a_host_whose_link_is_cut_is_named_and_the_batch_resumed(job):
    write_requests(job)
    job.alone("run", job.model, "--input", job.folder / "requests", "--output", job.folder / "all")
    output = job.folder / "cut"
    batch = job.batch(output)
    has_begun(batch, output)
    job.hosts.link(2, "down")
    ended(job, batch, [8], STEP_TIMEOUT + 30, r"ranks 4, 5 did not come within \d+ ms")
    job.hosts.link(2, "up")
    before = answers(output)
    codes = [json.loads(line).get("error") for line in open(output)]
    expect({error["code"] for error in codes if error is not None}, {"rank_lost"})
    expect(len(codes), 12)
    ended(job, job.batch(output, "--resume"), [0], 60)
    after = answers(output)
    expect(after, answers(job.folder / "all"))
    expect({i: after[i] for i in before}, before)


def a_host_that_dies_ends_the_batch_and_it_is_resumed(job):
    output = job.folder / "died"
    batch = job.batch(output)
    has_begun(batch, output)
    job.hosts.kill(3)
    ended(job, batch, LOST, STEP_TIMEOUT + 20, r"10\.77\.0\.4|node3|daemon")
    job.hosts.start_server(3)
    ended(job, job.batch(output, "--resume"), [0], 60)
    expect(answers(output), answers(job.folder / "all"))


class Server:
    """`tessera serve --ranks 8 --hostfile`, on node0."""

    def __init__(self, job):
        self.job = job
        self.log = job.folder / "serve.log"
        self.process = job.start(
            job.program, "serve", job.model, "--ranks", RANKS, "--hostfile", job.hostfile, "--port",
            8000, "--step-timeout", STEP_TIMEOUT, "--init-timeout", 20, "--restarts", 50,
            stderr=self.log.open("w"),
        )

    def ask(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", 8000)
        connection.sock = self.job.hosts.connect(0, 8000)
        text = json.dumps(body) if body is not None else None
        connection.request(method, path, text, {"Content-Type": "application/json"})
        return connection.getresponse()

    def is_ready(self):
        try:
            return self.ask("GET", "/health").status == 200
        except OSError:
            expect(self.process.poll(), None)
            return False

    def complete(self, in_the_middle):
        """The text of a long answer; `in_the_middle` happens once some of it is there."""
        answer = self.ask("POST", "/v1/completions", {
            "prompt": "Tell me a story", "max_tokens": 100, "temperature": 0, "ignore_eos": True,
            "stream": True,
        })
        text = ""
        for line in answer:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            if "error" in event:
                raise AssertionError(f"the answer ends: {event}: {self.log.read_text()[-1500:]}")
            before, text = text, text + event["choices"][0]["text"]
            if len(before) < 50 <= len(text):
                in_the_middle()
        return text

    def end(self):
        self.process.terminate()
        expect(self.process.wait(30), 0)


def a_server_goes_on_when_a_host_dies_or_is_cut_off(job):
    server = Server(job)
    hosts = job.hosts

    def die():
        hosts.kill(1)
        hosts.start_server(1)

    def cut():
        hosts.link(3, "down")
        # once the ranks have said so and been started again, in vain, it comes back
        until(lambda: "ranks 6, 7 did not come" in server.log.read_text(), "nobody is missed", 30)
        hosts.link(3, "up")

    try:
        until(server.is_ready, "it does not become ready", 60)
        whole = server.complete(lambda: None)
        expect(len(whole) > 100, True)
        expect(server.complete(die), whole)
        expect(server.complete(cut), whole)
        server.end()
    except BaseException:
        sys.stderr.write(server.log.read_text()[-3000:])
        server.process.kill()
        raise


def main():
    program, model = sys.argv[1:3]
    with tempfile.TemporaryDirectory() as folder:
        try:
            hosts = Hosts(4, folder)
        except NoHosts as why:
            print(f"skipped: no hosts can be made here: {why}")
            return SKIPPED
        print("mpirun reaches the others by " + ("ssh" if SSHD is not None else "an agent"))
        with hosts:
            return run(
                [
                    they_give_the_bytes_of_one_rank,
                    a_host_whose_link_is_cut_is_named_and_the_batch_resumed,
                    a_host_that_dies_ends_the_batch_and_it_is_resumed,
                    a_server_goes_on_when_a_host_dies_or_is_cut_off,
                ],
                Job(hosts, program, model, folder),
            )


if __name__ == "__main__":
    sys.exit(main())
