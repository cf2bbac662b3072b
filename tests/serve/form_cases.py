"""Answers that are held to a form, by a real server and in a batch: the model has no idea of any of it.

usage: form_cases.py TESSERA DEMO_FOLDER [MPIRUN]
"""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

TESSERA, DEMO = sys.argv[1:3]
MPIRUN = sys.argv[3] if len(sys.argv) > 3 else None
QUESTION = [{"role": "user", "content": "What is 12 + 30?"}]
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 2, "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "kind": {"enum": ["a", "b", None]},
        "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}, "maxItems": 2},
    },
    "required": ["name", "age", "kind"],
    "additionalProperties": False,
    "$defs": {"tag": {"type": "string", "pattern": "^[a-z]{1,3}$"}},
}
PARAMETERS = {
    "type": "object",
    "properties": {
        "n": {"type": "integer", "minimum": 0, "maximum": 99},
        "unit": {"type": "string", "enum": ["km", "mile"]},
    },
    "required": ["n", "unit"],
}
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": PARAMETERS}}
    for name in ("walk", "ride")
]


def schema(value):
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": value, "strict": True}}


def is_person(value):
    known = {"name", "age", "kind", "tags"}
    return (
        set(value) <= known
        and known - {"tags"} <= set(value)
        and 2 <= len(value["name"]) <= 12
        and type(value["age"]) is int
        and 0 <= value["age"] <= 130
        and value["kind"] in ("a", "b", None)
        and len(value.get("tags", [])) <= 2
        and all(re.fullmatch("[a-z]{1,3}", tag) for tag in value.get("tags", []))
    )


def is_call(call, names):
    arguments = json.loads(call["function"]["arguments"])
    return (
        call["function"]["name"] in names
        and set(arguments) == {"n", "unit"}
        and 0 <= arguments["n"] <= 99
        and arguments["unit"] in ("km", "mile")
    )


class Served:
    def __init__(self, folder, *options):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.process = subprocess.Popen(
            [TESSERA, "serve", folder, "--port", str(self.port), "--log-level", "warn", *options]
        )
        until = time.monotonic() + 60
        while True:
            try:
                if self.post("/tokenize", {"prompt": "a"})[0] == 200 and self.get("/health") == 200:
                    return
            except OSError:
                pass
            assert self.process.poll() is None and time.monotonic() < until, "it does not start"
            time.sleep(0.05)

    def __enter__(self):
        return self

    def __exit__(self, kind, *rest):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(timeout=30) == 0 or kind is not None

    def request(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, body and json.dumps(body),
                           {"Content-Type": "application/json"})
        answer = connection.getresponse()
        data = answer.read().decode()
        connection.close()
        return answer.status, data

    def get(self, path):
        return self.request("GET", path)[0]

    def post(self, path, body):
        status, data = self.request("POST", path, body)
        return status, json.loads(data)

    def chat(self, **more):
        body = {"messages": QUESTION, "temperature": 1.2, "max_tokens": 150, **more}
        status, answer = self.post("/v1/chat/completions", body)
        assert status == 200, (more, answer)
        return answer["choices"]

    def complete(self, **more):
        body = {"prompt": "A", "temperature": 1.2, "max_tokens": 150, **more}
        status, answer = self.post("/v1/completions", body)
        assert status == 200, (more, answer)
        return answer["choices"][0]

    def events(self, **more):
        body = {"messages": QUESTION, "temperature": 1.2, "max_tokens": 150, **more}
        status, data = self.request("POST", "/v1/chat/completions", {**body, "stream": True})
        assert status == 200, data
        lines = [part[6:] for part in data.split("\n\n") if part.startswith("data: ")]
        assert lines[-1] == "[DONE]"
        return [json.loads(line)["choices"][0] for line in lines[:-1]]

    def refused(self, field, says, path="/v1/chat/completions", **more):
        body = {"messages": QUESTION} if "chat" in path else {"prompt": "a"}
        status, answer = self.post(path, {**body, **more})
        assert status == 400, answer
        assert answer["error"]["param"] == field and says in answer["error"]["message"], answer


def forms(served):
    for seed in range(6):
        for choice in served.chat(response_format=schema(PERSON), seed=seed, n=2):
            assert choice["finish_reason"] == "stop", choice
            assert is_person(json.loads(choice["message"]["content"])), choice
    whole = served.chat(response_format=schema(PERSON), seed=7)[0]
    pieces = served.events(response_format=schema(PERSON), seed=7)
    assert "".join(p["delta"].get("content") or "" for p in pieces) == whole["message"]["content"]
    assert pieces[-1]["finish_reason"] == "stop"

    greedy = served.chat(response_format={"type": "json_object"}, temperature=0, max_tokens=400)[0]
    if greedy["finish_reason"] == "stop":
        assert type(json.loads(greedy["message"]["content"])) is dict
    told = served.complete(structured_outputs={"choice": ["yes", "no"]}, seed=1, logprobs=2)
    assert (told["text"] in ("yes", "no"), told["finish_reason"]) == (True, "stop")
    assert len(told["logprobs"]["top_logprobs"][0]) >= 2  # of the logits as they are
    assert told["logprobs"]["token_logprobs"][0] < max(told["logprobs"]["top_logprobs"][0].values())
    text = served.complete(guided_regex="[a-f]{3}-\\d{1,4}x", seed=2)
    assert re.fullmatch("[a-f]{3}-[0-9]{1,4}x", text["text"]) and text["finish_reason"] == "stop"
    assert json.loads(served.complete(guided_json={"const": {"a": [1, "é"]}})["text"]) == {
        "a": [1, "é"]
    }


def refusals(served):
    at = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}
    served.refused("response_format", "#/properties/a: uniqueItems is not served",
                   response_format=schema(at))
    served.refused("response_format", "nothing satisfies it",
                   response_format=schema({"$ref": "#/$defs/a", "$defs": {"a": False}}))
    served.refused("response_format", "larger than",
                   response_format=schema({"type": "string", "maxLength": 10**5}))
    served.refused("guided_grammar", "not served", guided_grammar="root ::= 'a'")
    served.refused("guided_regex", "what begins with (?", path="/v1/completions", guided_regex="(?=a)")
    deep = {}
    for _ in range(400):
        deep = {"type": "array", "items": deep}
    served.refused("response_format", "nested too deep", response_format=schema(deep))


@contextlib.contextmanager
def styled(template):
    """The demo model with a chat template of another style."""
    with tempfile.TemporaryDirectory() as folder:
        for name in os.listdir(DEMO):
            if name != "chat_template.jinja":
                os.symlink(os.path.abspath(os.path.join(DEMO, name)), os.path.join(folder, name))
        with open(os.path.join(folder, "chat_template.jinja"), "w") as out:
            out.write(template)
        yield folder


def calls(served):
    for seed in range(3):
        choice = served.chat(tools=TOOLS, tool_choice="required", parallel_tool_calls=False,
                             seed=seed)[0]
        made = choice["message"]["tool_calls"]
        assert choice["finish_reason"] == "tool_calls" and len(made) == 1, choice
        assert is_call(made[0], ("walk", "ride")), choice
    named = {"type": "function", "function": {"name": "ride"}}
    choice = served.chat(tools=TOOLS, tool_choice=named, seed=1)[0]
    assert [is_call(c, ("ride",)) for c in choice["message"]["tool_calls"]] == [True], choice
    pieces = served.events(tools=TOOLS, tool_choice=named, seed=1)
    streamed = [c for p in pieces for c in p["delta"].get("tool_calls") or []]
    assert [c["function"] for c in streamed] == [
        c["function"] for c in choice["message"]["tool_calls"]
    ]
    assert pieces[-1]["finish_reason"] == "tool_calls"
    served.refused("tool_choice", "no tool other", tools=TOOLS,
                   tool_choice={"type": "function", "function": {"name": "other"}})
    served.refused("tool_choice", "no tools to call", tool_choice="required")


def thoughts(served, opened):
    """What is thought is free; what is said is not."""
    choice = served.chat(response_format=schema(PERSON), seed=3, max_tokens=200)[0]
    message = choice["message"]
    if choice["finish_reason"] == "stop" and message["content"]:
        assert is_person(json.loads(message["content"])), choice
    if not opened:
        assert message["content"] and is_person(json.loads(message["content"])), choice


def batch(folder):
    """The same lines, on any number of ranks, give the same bytes."""
    formats = [schema(PERSON), {"type": "json_object"}, None, schema({"enum": [1, "x", None]})]
    with tempfile.TemporaryDirectory() as work:
        with open(os.path.join(work, "in"), "w") as lines:
            for i in range(12):
                body = {"messages": QUESTION, "seed": i, "temperature": 1.2, "max_tokens": 90,
                        "response_format": formats[i % 4]}
                line = {"custom_id": str(i), "method": "POST", "url": "/v1/chat/completions",
                        "body": {k: v for k, v in body.items() if v is not None}}
                lines.write(json.dumps(line) + "\n")
        answers = []
        for ranks in (1, 2, 4) if MPIRUN else (1,):
            command = [TESSERA, "run", folder, "--input", os.path.join(work, "in"), "--output",
                       os.path.join(work, f"out{ranks}"), "--log-level", "warn"]
            if ranks > 1:
                command = [MPIRUN, "-n", str(ranks), *command]
            assert subprocess.run(command, timeout=100).returncode == 0
            told = [json.loads(line) for line in open(os.path.join(work, f"out{ranks}"))]
            answers.append({
                t["custom_id"]: t["response"]["body"]["choices"][0]["message"]["content"]
                for t in told
            })
        assert all(a == answers[0] for a in answers), answers
        for i in range(12):
            if i % 4 == 0:
                assert is_person(json.loads(answers[0][str(i)])), answers[0][str(i)]
            if i % 4 == 3:
                assert json.loads(answers[0][str(i)]) in (1, "x", None)


def main():
    with Served(DEMO) as served:
        forms(served)
        print("forms: ok", flush=True)
        refusals(served)
        print("refusals: ok", flush=True)
    say = "{{ messages[-1].content }}"
    for style in ("<tool_call>", "<tool_call> <function=", "<arg_key>"):
        with styled("{# %s #}%s" % (style, say)) as folder, Served(folder) as served:
            calls(served)
            print(f"calls, {style}: ok", flush=True)
    for end, opened in (("", False), ("<think>", True), ("<think></think>", False)):
        template = "{# <think> #}%s%s" % (say, end)
        with styled(template) as folder, Served(folder) as served:
            thoughts(served, opened)
            print(f"thoughts behind '{end}': ok", flush=True)
    batch(DEMO)
    print("batch: ok", flush=True)


main()
