#!/usr/bin/env python3
"""Renders chat templates and snippets with jinja2, set up as Hugging Face transformers sets it up.

    make_template_golden.py                          writes tests/data/text/templates/golden.json
    make_template_golden.py --random N SEED FILE     writes N random snippets to FILE, the same form

test_template_parity compares ours with either file. golden.json holds

    conversations   variables for render()
    renders         [template, conversation, expected]
    snippets        [source, expected], rendered with `variables`
    refused         sources that ours refuses, whatever jinja2 makes of them

where `expected` is the text, null when jinja2 raises, or "#length:fnv1a64" of a long text (bytes).
Needs jinja2 3.1; the tests do not.
"""
import json
import pathlib
import sys

from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

import template_snippets

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "tests/data/text/templates"
DEMO = ROOT / "tests/data/demo-mixed/chat_template.jinja"
SHOWN_MOST = 240


class Generation(Extension):
    """{% generation %}: transformers marks its body for training, and renders it."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


def environment():
    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                          sort_keys=sort_keys)

    def raise_exception(message):
        raise ValueError(message)

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                        extensions=[Generation, loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    return env


ENV = environment()
USUAL = {"tools": None, "documents": None, "add_generation_prompt": False}


def render(source, variables):
    """The text, or None when anything is raised."""
    try:
        text = ENV.from_string(source).render(**{**USUAL, **variables})
        text.encode("utf-8")
        # An address tells nothing; ours refuses to print such values.
        return None if " at 0x" in text else text
    except Exception:  # what is raised does not matter, only that something is
        return None


def short(text):
    if text is None:
        return None
    data = text.encode("utf-8")
    if len(data) <= SHOWN_MOST and not text.startswith("#"):
        return text
    digest = 0xCBF29CE484222325
    for byte in data:
        digest = ((digest ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return f"#{len(data)}:{digest:016x}"


def call(name, arguments, id="call12345"):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


NESTED = {"type": "object", "required": ["city", "when"], "additionalProperties": False, "properties": {
    "city": {"type": "string", "description": " The city, e.g. \"Zürich\" <or> 東京 "},
    "when": {"type": ["string", "null"], "enum": ["now", "später", None], "default": None},
    "grid": {"type": "array", "items": {"type": "array", "items": {"type": "number", "minimum": -1.5e-7}}},
    "deep": {"type": "object", "properties": {"a": {"type": "object", "properties": {}}}, "x-flag": True}}}
TOOLS = [{"type": "function", "function": {"name": "get_weather", "description": "Weather & more\n",
                                           "parameters": NESTED, "strict": True}},
         {"type": "function", "function": {"name": "add_two", "description": "Adds.", "parameters": {
             "type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "number"}}}}},
         {"type": "function", "function": {"name": "no_arguments", "return": "none"}}]
FLAT = [{"name": "look", "description": "Looks 'up'", "parameters": {"type": "object", "properties": {}}}]


def conversations():
    user = lambda text: {"role": "user", "content": text}
    assistant = lambda text, **more: {"role": "assistant", "content": text, **more}
    system = lambda text: {"role": "system", "content": text}
    tool = lambda text: {"role": "tool", "content": text, "tool_call_id": "call12345"}
    mixed = {"city": "Zürich", "n": 3, "x": 1.0, "tiny": 1e-7, "big": 1e22, "yes": True, "no": False,
             "nothing": None, "list": [1, "a", None, [2.5]], "map": {"k": {"v": "\"q\" 'p' \\ \n\t\u0001"}}}
    chats = [
        [user("Hi")],
        [user("")],
        [system("Be brief."), user("Hello there")],
        [system(""), user("x"), assistant("y"), user("z")],
        [user("1"), assistant("<think>\nhm, 你好\n</think>\n\nAnswer"), user("2"), assistant("<think>a</think>b")],
        [user("q"), assistant("visible", reasoning_content="\n hidden thought \n"), user("again"),
         assistant("", reasoning_content="only thinking")],
        [user("weather?"), assistant("", tool_calls=[call("get_weather", mixed)]), tool("sunny"), tool("{\"t\": 1}"),
         assistant("It is sunny.")],
        [user("weather?"), assistant("Let me look.", tool_calls=[call("get_weather", {"city": "東京"}),
                                                                call("add_two", {"a": 1, "b": -2.5})]),
         tool("ok"), assistant("<think>\nthen\n</think>\n\ndone", tool_calls=[call("no_arguments", {})]), tool("")],
        [user("string arguments"), assistant(None, tool_calls=[call("add_two", '{"a": 1, "b": 2}')]), tool("3"),
         assistant("3"), user("thanks")],
        [user([{"type": "text", "text": "part one "}, {"type": "image", "url": "x"}, {"type": "text", "text": "two"}])],
        [user([{"type": "text", "text": "a"}, "plain"]), assistant([{"type": "text", "text": "b"}])],
        [user("emoji 👩‍👩‍👧‍👦 and e\u0301, العربية, हिन्दी, \u200b, \ufeff, 𝒳")],
        [user("<tool_response>\nnot a question\n</tool_response>"), assistant("ok"), user("real"),
         user("<tool_response>\nlast\n</tool_response>")],
        [user(" \n padded \t\n"), assistant("\n\n line\n\n"), system("late"), user("{{ messages }} {% if %}")],
        [user("long " * 400), assistant("日本語の長い文 " * 300), user("\n".join(str(i) for i in range(200)))],
        [assistant("I begin"), user("?")],
        [tool("orphan"), user("?")],
        [user("a"), user("b"), user("c"), assistant("d"), assistant("e")],
        [user("n"), {"role": "assistant", "content": "x", "tool_calls": []}, user("m")],
        [user("n"), {"role": "assistant", "content": None, "tool_calls": None}, user("m")],
        [user("n"), {"role": "assistant"}, user("m")],
        [user("flat"), assistant("", tool_calls=[{"name": "look", "arguments": {"at": [1, 2, {"z": 0}], "s": "<&>"}}]),
         {"role": "tool", "content": [{"output": "seen"}, "also"]}, assistant("fine")],
        [user("r"), {"role": "robot", "content": "beep"}],
        [user("/nothink"), assistant("a/nothink"), user("b /nothink")],
        [user(5), assistant(1.5), user(True)],
        [system("s"), system("t"), user("u")],
        [],
    ]
    settings = [
        {"add_generation_prompt": True},
        {"add_generation_prompt": True, "tools": TOOLS, "enable_thinking": True, "bos_token": "<s>", "eos_token": "</s>"},
        {"tools": FLAT, "enable_thinking": False, "add_generation_prompt": True, "clear_thinking": False,
         "bos_token": "<|begin|>", "eos_token": "", "date_string": "1 Jan 2025", "thinking": True},
        {"add_generation_prompt": False, "tools": [], "bos_token": "", "eos_token": "<e>", "clear_thinking": True},
    ]
    for chat in chats:
        for setting in settings:
            yield {"messages": chat, **setting}


def templates():
    yield "demo", DEMO.read_text()
    for path in sorted(FOLDER.glob("*.jinja")):
        yield path.stem, path.read_text()


def through_json(value):
    """What a JSON parser makes of it, which is what both sides get."""
    return json.loads(json.dumps(value))


def write(path, data):
    rows = []
    for key, value in data.items():
        if isinstance(value, list):
            lines = ",\n".join(json.dumps(x, ensure_ascii=False, separators=(",", ":")) for x in value)
            rows.append(f"{json.dumps(key)}:[\n{lines}\n]")
        else:
            rows.append(f"{json.dumps(key)}:{json.dumps(value, ensure_ascii=False)}")
    pathlib.Path(path).write_text("{" + ",\n".join(rows) + "}\n")


def main():
    variables = through_json(template_snippets.VARIABLES)
    if len(sys.argv) == 5 and sys.argv[1] == "--random":
        sources = template_snippets.random_snippets(int(sys.argv[2]), int(sys.argv[3]))
        snippets = [[s, short(render(s, variables))] for s in sources]
        write(sys.argv[4], {"conversations": [], "renders": [], "variables": variables, "snippets": snippets})
        print(len(snippets), "snippets,", sum(e is None for _, e in snippets), "of them raise")
        return
    chats = [through_json(c) for c in conversations()]
    renders = [[name, i, short(render(source, chat))] for name, source in templates() for i, chat in enumerate(chats)]
    sources = template_snippets.snippets() + template_snippets.random_snippets(600, 1)
    snippets = [[s, short(render(s, variables))] for s in sources]
    write(FOLDER / "golden.json", {"conversations": chats, "renders": renders, "variables": variables,
                                   "snippets": snippets, "refused": template_snippets.REFUSED})
    print(len(renders), "renders,", sum(e is None for *_, e in renders), "of them raise;",
          len(snippets), "snippets,", sum(e is None for _, e in snippets), "of them raise")


if __name__ == "__main__":
    main()
