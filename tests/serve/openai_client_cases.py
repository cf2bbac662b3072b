"""The `openai` package, unmodified, on a real server. Exit code 77: it is not installed here.

usage: openai_client_cases.py TESSERA DEMO_FOLDER
"""

import contextlib
import enum
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

try:
    import openai
    import pydantic
except ImportError:
    print("the openai package is not installed")
    sys.exit(77)

TESSERA, DEMO = sys.argv[1:3]
KEY = "a key"
QUESTION = [{"role": "user", "content": "What is 12 + 30?"}]
PARTS = [{"role": "user", "content": [{"type": "text", "text": "What is 12 + 30?"}]}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_ready(port):
    for _ in range(600):
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).status
        except (OSError, urllib.error.HTTPError):
            time.sleep(0.1)
    raise AssertionError("not ready within a minute")


def chat(client, model):
    whole = client.chat.completions.create(model=model, messages=QUESTION)
    assert (whole.choices[0].message.content, whole.choices[0].finish_reason) == ("42", "stop")
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens

    asked = {"model": model, "messages": PARTS, "stream": True}
    events = list(client.chat.completions.create(**asked, stream_options={"include_usage": True}))
    said = [e.choices[0].delta.content or "" for e in events if e.choices]
    assert "".join(said) == "42" and events[-1].usage.completion_tokens == 3
    with client.chat.completions.stream(model=model, messages=QUESTION, n=2) as stream:
        list(stream)
        final = stream.get_final_completion()
    assert [c.message.content for c in final.choices] == ["42", "42"]


def logprobs(client, model):
    asked = {"model": model, "messages": QUESTION, "logprobs": True, "top_logprobs": 3}
    content = client.chat.completions.create(**asked).choices[0].logprobs.content
    for token in content:
        assert token.logprob == max(t.logprob for t in token.top_logprobs)
        assert len(token.top_logprobs) == 3
    echoed = client.completions.create(model=model, prompt="What is", max_tokens=1, echo=True,
                                       logprobs=2, temperature=0).choices[0]
    told = echoed.logprobs
    assert told.token_logprobs[0] is None and told.top_logprobs[0] is None
    assert "".join(told.tokens) == echoed.text
    assert told.token_logprobs[-1] == max(told.top_logprobs[-1].values())


def completions(client, model):
    asked = {"model": model, "prompt": ["a", "b"], "max_tokens": 5, "n": 2, "temperature": 0}
    choices = client.completions.create(**asked).choices
    assert [c.index for c in choices] == [0, 1, 2, 3]
    assert choices[0].text == choices[1].text != choices[2].text == choices[3].text
    seeded = {"model": model, "prompt": "a", "max_tokens": 8, "temperature": 1.5, "seed": 4}
    assert len({client.completions.create(**seeded).choices[0].text for _ in range(3)}) == 1


class Unit(enum.Enum):
    KM = "km"
    MILE = "mile"


class Way(pydantic.BaseModel):
    """What the client makes a schema of, and what it reads the answer into."""

    length: int = pydantic.Field(ge=1, le=40)
    unit: Unit
    name: str = pydantic.Field(max_length=8)
    back: bool | None


def forms(client, model):
    asked = {"model": model, "messages": QUESTION, "temperature": 1.3, "seed": 5}
    parsed = client.chat.completions.parse(**asked, response_format=Way).choices[0]
    way = parsed.message.parsed
    assert parsed.finish_reason == "stop" and type(way) is Way and 1 <= way.length <= 40, parsed
    with client.chat.completions.stream(**asked, response_format=Way) as stream:
        list(stream)
        assert stream.get_final_completion().choices[0].message.parsed == way
    whole = client.chat.completions.create(**asked, response_format={"type": "json_object"})
    assert whole.choices[0].message.content.lstrip().startswith("{")
    chosen = client.completions.create(model=model, prompt="a",
                                       extra_body={"structured_outputs": {"choice": ["x y", "z"]}})
    assert chosen.choices[0].text in ("x y", "z")


def calls(client, model):
    """Tools that must be called; the chat template of this model knows calls."""
    tools = [openai.pydantic_function_tool(Way, name=name) for name in ("walk", "ride")]
    asked = {"model": model, "messages": QUESTION, "temperature": 1.3, "seed": 4, "tools": tools}
    ride = {"type": "function", "function": {"name": "ride"}}
    for choice, names in (("required", {"walk", "ride"}), (ride, {"ride"})):
        made = client.chat.completions.parse(
            **asked, tool_choice=choice, parallel_tool_calls=False
        ).choices[0]
        assert made.finish_reason == "tool_calls" and len(made.message.tool_calls) == 1, made
        function = made.message.tool_calls[0].function
        assert function.name in names and type(function.parsed_arguments) is Way, made
        asked_again = {**asked, "tool_choice": choice, "parallel_tool_calls": False}
        with client.chat.completions.stream(**asked_again) as stream:
            list(stream)
            final = stream.get_final_completion().choices[0].message
        assert final.tool_calls[0].function.arguments == function.arguments


def errors(client, model):
    def refused(kind, code, **asked):
        try:
            client.chat.completions.create(**{"model": model, "messages": QUESTION, **asked})
        except kind as error:
            assert error.code == code, (error.code, code)
            return
        raise AssertionError(f"{asked} was taken")

    refused(openai.NotFoundError, "model_not_found", model="another")
    refused(openai.BadRequestError, "context_length_exceeded", max_tokens=10**6)
    refused(openai.BadRequestError, "invalid_value", temperature=9)
    refused(openai.BadRequestError, "unsupported_parameter", tools=[TOOL])  # of this template
    odd = {"type": "json_schema", "json_schema": {"name": "odd", "schema": {"multipleOf": 2}}}
    refused(openai.BadRequestError, "invalid_value", response_format=odd)
    stranger = openai.OpenAI(base_url=client.base_url, api_key="another key", max_retries=0)
    try:
        stranger.models.list()
    except openai.AuthenticationError as error:
        assert error.code == "invalid_api_key"
    else:
        raise AssertionError("a stranger was let in")


def retries(client, model, server, command):
    """A client that comes while the server starts again is answered in the end."""
    server.terminate()
    assert server.wait(timeout=30) == 0
    server = subprocess.Popen(command)
    for _ in range(100):
        try:
            patient = client.with_options(max_retries=20)
            answer = patient.chat.completions.create(model=model, messages=QUESTION)
            break
        except openai.APIConnectionError:  # the port is not there yet
            time.sleep(0.05)
    assert answer.choices[0].message.content == "42"
    return server


@contextlib.contextmanager
def told_of_tools():
    """The demo model, with a chat template that knows calls."""
    with tempfile.TemporaryDirectory() as folder:
        for name in os.listdir(DEMO):
            if name != "chat_template.jinja":
                os.symlink(os.path.abspath(os.path.join(DEMO, name)), os.path.join(folder, name))
        with open(os.path.join(folder, "chat_template.jinja"), "w") as template:
            template.write("{# <tool_call> #}{{ messages[-1].content }}")
        port = free_port()
        command = [TESSERA, "serve", folder, "--port", str(port), "--log-level", "warn"]
        server = subprocess.Popen(command)
        try:
            wait_ready(port)
            client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=KEY)
            yield client, client.models.list().data[0].id
            server.terminate()
            assert server.wait(timeout=30) == 0
        finally:
            server.kill()


def main():
    port = free_port()
    command = [TESSERA, "serve", DEMO, "--port", str(port), "--api-key", KEY, "--log-level", "warn"]
    server = subprocess.Popen(command)
    try:
        wait_ready(port)
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=KEY)
        model = client.models.list().data[0].id
        assert model == os.path.basename(os.path.abspath(DEMO))
        for case in (chat, logprobs, completions, forms, errors):
            case(client, model)
            print(f"{case.__name__}: ok", flush=True)
        server = retries(client, model, server, command)
        print("retries: ok")
        server.terminate()
        assert server.wait(timeout=30) == 0
    finally:
        server.kill()
    with told_of_tools() as served:
        calls(*served)
        print("calls: ok")


main()
