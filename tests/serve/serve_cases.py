"""`tessera serve` whole: the three ways to start it, an engine that dies under load, drains, refusals.

usage: serve_cases.py TESSERA DEMO_FOLDER MPIRUN
"""

import concurrent.futures
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time

TESSERA, DEMO, MPIRUN = sys.argv[1:4]
QUESTIONS = [json.loads(line) for line in open(os.path.join(DEMO, "grading.jsonl"))]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Served:
    def __init__(self, *options, before=()):
        self.port = free_port()
        command = [*before, TESSERA, "serve", DEMO, "--port", str(self.port), *options]
        self.process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def __enter__(self):
        return self

    def __exit__(self, kind, *rest):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            for pid in self.engines():
                os.kill(pid, signal.SIGKILL)
            errors = self.process.communicate()[1]
            if kind is not None:
                sys.stderr.write(errors)

    def request(self, method, path, body=None, timeout=60):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        headers = {"Content-Type": "application/json"}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, json.loads(data)

    def wait_ready(self, seconds=30):
        until = time.monotonic() + seconds
        seen = set()
        while time.monotonic() < until:
            try:
                status, health = self.request("GET", "/health", timeout=5)
            except OSError:
                assert self.process.poll() is None, self.process.communicate()[1]
                time.sleep(0.02)
                continue
            seen.add(health["status"])
            if status == 200:
                return seen
            time.sleep(0.05)
        raise AssertionError(f"not ready within {seconds} s: {seen}")

    def chat(self, question, **more):
        messages = [{"role": "user", "content": question["question"]}]
        body = {"messages": messages, "max_tokens": 192, "temperature": 0, **more}
        status, answer = self.request("POST", "/v1/chat/completions", body)
        assert status == 200, (status, answer)
        return answer["choices"][0]["message"]["content"]

    def engines(self):
        """Processes of the engine of this server, by their command line."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                words = open(f"/proc/{pid}/cmdline", "rb").read().split(b"\0")
            except OSError:
                continue
            is_tessera = os.path.basename(words[0]) == os.path.basename(TESSERA).encode()
            if is_tessera and str(self.port).encode() in words and int(pid) != self.process.pid:
                found.append(int(pid))
        return sorted(found)

    def kill_rank(self):
        """Kills the last rank and waits for another engine."""
        before = self.engines()
        os.kill(before[-1], signal.SIGKILL)
        until = time.monotonic() + 20
        while set(before) & set(self.engines()):
            assert time.monotonic() < until
            time.sleep(0.02)
        self.wait_ready()

    def end(self, code, seconds=20):
        errors = self.process.communicate(timeout=seconds)[1]
        assert self.process.returncode == code, (self.process.returncode, code, errors)
        assert self.engines() == [], self.engines()
        assert f"ready at http://127.0.0.1:{self.port}\n" in errors, errors
        return errors


def is_right(question, answer):
    return answer.strip() == question["expected"]


def ask(served, number, question):
    """Every third is held to a form, which any answer has."""
    form = {"structured_outputs": {"regex": "(.|\\n)*"}} if number % 3 == 0 else {}
    return served.chat(question, **form)


def ask_all(served, questions, clients):
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        count = len(questions)
        answers = list(pool.map(ask, [served] * count, range(count), questions))
    right = sum(is_right(q, a) for q, a in zip(questions, answers))
    assert right >= len(questions) - 1, (right, len(questions))
    return answers


def an_engine_dies_under_load():
    questions = QUESTIONS[:96]
    with Served("--ranks", "4") as served:
        assert served.wait_ready() <= {"loading", "ok"}
        undisturbed = ask_all(served, questions, 16)
        with concurrent.futures.ThreadPoolExecutor(1) as killer:

            def kill_twice():
                for _ in range(2):
                    time.sleep(0.15)
                    served.kill_rank()

            killing = killer.submit(kill_twice)
            answers = ask_all(served, questions, 16)
            killing.result()
        assert answers == undisturbed
        served.process.send_signal(signal.SIGUSR1)
        errors = served.end(0)
        assert errors.count("starting it again") == 2, errors


def seeds_are_continued():
    body = {"model": "demo-mixed", "prompt": "abc", "max_tokens": 300, "ignore_eos": True}
    with Served("--ranks", "2") as served:
        served.wait_ready()
        drawn = {**body, "temperature": 1.0, "seed": 7}
        first = served.request("POST", "/v1/completions", drawn)[1]["choices"]
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            again = pool.submit(served.request, "POST", "/v1/completions", drawn)
            time.sleep(0.2)
            os.kill(served.engines()[-1], signal.SIGKILL)
            assert again.result()[1]["choices"] == first
        served.process.send_signal(signal.SIGTERM)
        served.end(0)


def a_stopped_rank_is_replaced():
    with Served("--ranks", "2", "--step-timeout", "1") as served:
        served.wait_ready()
        os.kill(served.engines()[-1], signal.SIGSTOP)
        began = time.monotonic()
        assert is_right(QUESTIONS[0], served.chat(QUESTIONS[0]))
        assert time.monotonic() - began < 20
        served.process.send_signal(signal.SIGUSR1)
        served.end(0)


def a_launcher_starts_it():
    launch = (MPIRUN, "-n", "2")
    with Served(before=launch) as served:
        served.wait_ready()
        ask_all(served, QUESTIONS[:16], 8)
        served.process.send_signal(signal.SIGUSR1)
        served.end(0)
    with Served(before=launch) as served:
        served.wait_ready()
        body = {"model": "demo-mixed", "prompt": "abc", "max_tokens": 400, "ignore_eos": True}
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            cut = pool.submit(served.request, "POST", "/v1/completions", body)
            time.sleep(0.2)
            os.kill(served.engines()[1], signal.SIGKILL)  # the third is the gateway
            status, answer = cut.result()
        assert status == 503 and answer["error"]["code"] == "engine_dead", (status, answer)
        served.end(137)


def load(served, *options, failed=0):
    """`tessera bench serve` on it."""
    url = f"http://127.0.0.1:{served.port}"
    sizes = ("--input-tokens", "8", "--output-tokens", "5", "--vocab", "200", "--json")
    command = [TESSERA, "bench", "serve", "--url", url, *sizes, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == (9 if failed else 0), done.stderr
    seen = json.loads(done.stdout)
    answered = seen["requests"] - failed
    assert seen["failed"] == failed, seen
    assert (seen["input_tokens"], seen["output_tokens"]) == (8 * answered, 5 * answered), seen
    if answered:
        assert 0 < seen["ttft_ms"]["p50"] <= seen["e2e_ms"]["p99"], seen


def one_process_serves():
    with Served("--local-ranks", "2") as served:
        served.wait_ready()
        ask_all(served, QUESTIONS[:16], 8)
        assert served.request("GET", "/v1/models")[1]["data"][0]["id"] == "demo-mixed"
        load(served, "--requests", "12", "--clients", "4")
        load(served, "--requests", "2", "--output-tokens", "9999", failed=2)
        assert served.request("POST", "/drain")[0] == 202
        served.end(0)


def what_cannot_start_says_why():
    def refused(code, *words, folder=DEMO, before=()):
        done = subprocess.run(
            [*before, TESSERA, "serve", folder, *words], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == code, (done.returncode, code, done.stderr)
        assert done.stderr.count("error:") >= 1, done.stderr
        return done.stderr

    refused(3, "--port", "0", folder="/nowhere")
    told = refused(3, "--port", "0", folder="/nowhere", before=(MPIRUN, "-n", "2"))
    assert told.count("error:") == 1, told
    refused(2, "--hostfile", "hosts")
    refused(2, "--ranks", "2", "--local-ranks", "2")
    refused(2, "--ranks", "2", before=(MPIRUN, "-n", "2"))
    errors = refused(4, "--port", "0", "--memory", "1MB")
    assert "starting it again" not in errors, errors
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        refused(7, "--port", str(taken.getsockname()[1]))


def an_engine_that_keeps_dying_is_given_up():
    with Served("--ranks", "2", "--restarts", "1") as served:
        served.wait_ready()
        served.kill_rank()
        os.kill(served.engines()[-1], signal.SIGKILL)
        errors = served.end(137)
        assert "not started again" in errors, errors


def complete(served, **body):
    status, answer = served.request("POST", "/v1/completions", body)
    assert status == 200, answer
    return answer["choices"]


def probabilities_are_told():
    """As lm-eval asks: several prompts of ids, echoed, one token each. What is said with them is what is
    said without, and a prompt scores what its answers had."""
    prompt = [10, 20, 30, 40, 17]
    with Served("--local-ranks", "2") as served:
        served.wait_ready()
        ask = {"temperature": 0, "max_tokens": 6, "ignore_eos": True}
        [plain] = complete(served, prompt=[prompt], **ask)
        [told] = complete(served, prompt=[prompt], logprobs=3, **ask)
        assert told["text"] == plain["text"] and plain["logprobs"] is None
        said = told["logprobs"]
        assert all(max(top.values()) == p for top, p in zip(said["top_logprobs"], said["token_logprobs"]))
        assert all(3 <= len(top) <= 4 for top in said["top_logprobs"])
        ids = served.request("POST", "/tokenize", {"prompt": plain["text"], "add_special_tokens": False})
        echoed = complete(served, prompt=[prompt, prompt + [21], prompt], max_tokens=1, temperature=0,
                          logprobs=1, echo=True, n=2)
        assert [choice["index"] for choice in echoed] == list(range(6))
        for choice, length in zip(echoed, (5, 5, 6, 6, 5, 5)):
            scores = choice["logprobs"]
            assert scores["token_logprobs"][0] is None and scores["top_logprobs"][0] is None
            assert len(scores["token_logprobs"]) == len(scores["tokens"]) == length + 1
            for token, p, top in list(zip(*[scores[k] for k in ("tokens", "token_logprobs", "top_logprobs")]))[1:]:
                assert top[token] >= p and max(top.values()) >= p
        assert echoed[0]["logprobs"] == echoed[5]["logprobs"]
        assert echoed[0]["logprobs"]["token_logprobs"][-1] == said["token_logprobs"][0]
        [scored] = complete(served, prompt=[prompt], max_tokens=0, logprobs=1, echo=True)
        assert scored["logprobs"]["token_logprobs"] == echoed[0]["logprobs"]["token_logprobs"][:-1]
        whole = served.request("POST", "/v1/completions", {
            "prompt": [prompt + ids[1]["tokens"]], "max_tokens": 0, "logprobs": 0, "echo": True})[1]
        again = whole["choices"][0]["logprobs"]
        if again["tokens"][5:] == said["tokens"]:
            assert again["token_logprobs"][5:] == said["token_logprobs"]
        drawn = {"prompt": [prompt], "max_tokens": 12, "temperature": 1.2, "seed": 3, "ignore_eos": True,
                 "logprobs": 0}
        all_four = complete(served, **drawn, n=4)
        best_two = complete(served, **drawn, n=2, best_of=4)
        by_mean = sorted(all_four, key=lambda c: -sum(c["logprobs"]["token_logprobs"]))
        assert [c["text"] for c in best_two] == [c["text"] for c in by_mean[:2]], (best_two, all_four)
        assert [c["index"] for c in best_two] == [0, 1]
        [told] = complete(served, prompt=[prompt], max_tokens=1, prompt_logprobs=2)
        for i, scored in enumerate(told["prompt_logprobs"][1:], 1):
            assert scored[str(prompt[i])]["logprob"] == echoed[0]["logprobs"]["token_logprobs"][i]
        assert served.request("GET", "/health_generate") == (200, {"status": "ok"})
        for rule in ({"logit_bias": {"33": 100}}, {"allowed_token_ids": [33]}):
            [ruled] = complete(served, prompt=[prompt], **ask, **rule)
            one = served.request("POST", "/detokenize", {"tokens": [33] * 6})[1]["prompt"]
            assert ruled["text"] == one, (rule, ruled, one)
        status, stuck = served.request("POST", "/v1/completions", {
            "prompt": [prompt], **ask, "allowed_token_ids": [1878], "min_tokens": 2})
        assert (status, stuck["error"]["code"]) == (400, "no_token_left"), stuck
        biased = {"prompt": [prompt], "logit_bias": {"33": 20}, "logprobs": 0, "ignore_eos": True}
        [often] = complete(served, **biased, temperature=0, max_tokens=40)
        [seldom] = complete(served, **biased, temperature=0, max_tokens=40, frequency_penalty=2)
        count = [choice["logprobs"]["tokens"].count(one[0]) for choice in (often, seldom)]
        assert count[0] > count[1] > 0, (often, seldom)
        served.request("POST", "/drain")
        served.end(0)


def experts_are_counted():
    """The same rows for the same experts on any number of ranks: of each token one for each choice."""
    top_k = json.load(open(os.path.join(DEMO, "config.json")))["num_experts_per_tok"]
    seen = []
    for ranks in (("--local-ranks", "1"), ("--ranks", "3")):
        with Served(*ranks) as served:
            served.wait_ready()
            assert served.request("GET", "/experts")[1]["tokens"] == []
            complete(served, prompt=[[10, 20, 30, 40, 17]], max_tokens=30, temperature=0, ignore_eos=True)
            until = time.monotonic() + 10
            while (experts := served.request("GET", "/experts")[1])["steps"] < 30:
                assert time.monotonic() < until, experts
                time.sleep(0.05)
            assert [sum(layer) for layer in experts["tokens"]] == [top_k * (5 + 29)] * experts["layers"], experts
            seen.append(experts)
            served.request("POST", "/drain")
            served.end(0)
    assert seen[0] == seen[1]


CASES = [
    experts_are_counted,
    probabilities_are_told,
    an_engine_dies_under_load,
    seeds_are_continued,
    a_stopped_rank_is_replaced,
    a_launcher_starts_it,
    one_process_serves,
    what_cannot_start_says_why,
    an_engine_that_keeps_dying_is_given_up,
]

for case in CASES:
    start = time.monotonic()
    case()
    print(f"{case.__name__}: {time.monotonic() - start:.1f} s", flush=True)
