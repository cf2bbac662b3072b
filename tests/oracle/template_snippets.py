"""Small templates for make_template_golden.py: one line per feature and edge, and random ones."""
import random
from pathlib import Path

VARIABLES = {
    "s": "Hello, Wörld", "e": "", "q": "it's \"quoted\" \\ \n", "sp": "  \t pad\u00a0ded \n", "u": "ÀÉß ŉ ǆ Σας ΟΔΟΣ İıſ 日本 👩‍👧 ﬁ",
    "csv": "a,b,,c", "lines": "one\ntwo\r\nthree\n\nfive\u2028six", "html": "<b>&'\"</b>", "digits": "42", "fl": "42.75", "think": "<think>\nx\n</think>\n\nans",
    "i": 7, "z": 0, "neg": -3, "big": 9007199254740993, "f": 2.5, "g": -0.1, "h": 1e16, "tiny": 1.5e-7, "whole": 3.0, "yes": True, "no": False, "nil": None,
    "l": [3, 1, 2], "ls": ["b", "A", "c", "a"], "mixed": [1, "x", None, True, 2.5, [1, [2]], {"k": "v"}], "el": [], "ll": [[1, 2], [3, 4]],
    "d": {"b": 1, "a": {"x": [1, 2], "y": None}, "items": "shadowed", "n": 0, "C": 2}, "ed": {}, "dk": {"1": "one", "k e y": True},
    "people": [{"name": "Bob", "age": 30, "tags": ["x"]}, {"name": "alice", "age": 25, "tags": []}, {"name": "Carl", "age": 30}],
}

# One expression a line; a line end inside one is written as the byte 1.
EXPRESSIONS = [x.replace("\x01", "\n") for x in Path(__file__).with_name("template_expressions.txt").read_text().splitlines()]

STATEMENTS = [
    "{{ (s * 50).find((s * 30)[3:]) }}{{ (s * 50).replace((s * 9)[1:], '#') }}{{ (s * 20)[2:] in (s * 30) }}{{ (s * 20 ~ 'x') in (s * 30) }}{{ (u * 30).split((u * 3)[2:]) | length }}", "plain", "", "\n", "a\n", "a\n\n", "\r\na\rb\r\n", "{", "{ {", "}}", "%}", "{{}}", "{{ }}", "{%%}", "{% %}", "{# c #}", "{# c", "{#}#}", "{##}", "{#-#}x", "{{ 1", "{% if",
    "a {# c #} b", "a\n  {# c #}\n b", "a \n {#- c -#} \n b", "a\n{#+ c +#}\nb", "  {{ i }}\n  {{ i }}\n", "  {{- i -}}  \n x",
    "{% if yes %}\nA\n{% endif %}\nB", "  {% if yes %}\n  A\n  {% endif %}\n  B", "x  {% if yes %}\n  A\n  {% endif %}\n  B", "  {%+ if yes %}\n  A\n  {%+ endif %}\n  B",
    "  {%- if yes -%}\n  A\n  {%- endif -%}\n  B", "{% if yes +%}\nA\n{% endif +%}\nB", "{% if yes -%}  \n\n A {% endif %}", "a\n\n  {%- if yes %} b{% endif %}", "\u00a0 {%- if yes -%} \u2003x{% endif %}",
    "a\t {% if yes %}\tb{% endif %}", "\t{% if yes %}b{% endif %}\n\n\n", "{{ i }}\n{{ i }}", "{{ i -}}\n{{ i }}", "{{ i }}\n\n", "a {{- i }}", "{{ '{{' }}", "{{ '}}' }}", "{{ {'a': {'b': 1}} }}", "{{ {'a': {}} }}", "{% set x = {'a': {'b': '%}'}} %}{{ x }}",
    "{% raw %}{{ x }}{% endraw %}", "a\n {% raw %}\n {{ x }}\n {% endraw %}\n b", "{%- raw -%}\n x \n{%- endraw -%}\n y", "{% raw %}{% if %}", "{% raw %}{# #}{% endraw +%}\nx", "{%raw%}a{%endraw%}", "x {%- raw %} y {% endraw -%} z",
    "{% if no %}a{% elif i == 7 %}b{% else %}c{% endif %}", "{% if no %}a{% elif no %}b{% else %}c{% endif %}", "{% if no %}a{% endif %}", "{% if nope %}a{% else %}b{% endif %}", "{% if %}{% endif %}", "{% if yes %}", "{% endif %}", "{% else %}", "{% if yes %}{% else %}{% else %}{% endif %}", "{% if no, %}t{% endif %}", "{% if yes: %}c{% endif %}",
    "{% if yes %}{% set x = 1 %}{% endif %}{{ x }}", "{% set x = 1 %}{% if yes %}{% set x = 2 %}{% endif %}{{ x }}", "{% if no %}{% set i = 1 %}{% endif %}{{ i }}", "{% if no %}{% set x = 1 %}{% endif %}{{ x }}",
    "{% for x in l %}{{ x }}{% endfor %}", "{% for x in l %}\n{{ x }}\n{% endfor %}\n", "{% for x in l -%}\n {{ x }}\n{%- endfor %}", "{% for x in el %}a{% else %}b{% endfor %}", "{% for x in l %}a{% else %}b{% endfor %}", "{% for x in nope %}a{% else %}b{% endfor %}", "{% for x in i %}{% endfor %}", "{% for x in nil %}{% endfor %}",
    "{% for c in s %}{{ c }}.{% endfor %}", "{% for c in u %}{{ c }}.{% endfor %}", "{% for k in d %}{{ k }},{% endfor %}", "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", "{% for k, v in d|items %}{{ k }}={{ v }};{% endfor %}", "{% for k, v in d|dictsort %}{{ k }};{% endfor %}", "{% for a, b in ll %}{{ a + b }} {% endfor %}", "{% for a, b in l %}{% endfor %}", "{% for a, b in ['xy', 'zw'] %}{{ b }}{{ a }}{% endfor %}", "{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}", "{% for a, in [[1], [2]] %}{{ a }}{% endfor %}", "{% for (a, b) in ll %}{{ a }}{% endfor %}", "{% for k, v in d %}{{ k }}{% endfor %}",
    "{% for x in l if x > 1 %}{{ loop.index }}{{ x }}{% endfor %}", "{% for x in l if x > 9 %}a{% else %}none{% endfor %}", "{% for x in range(6) if x is odd %}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.revindex }}{{ loop.revindex0 }};{% endfor %}", "{% for x in l if loop.first %}{% endfor %}", "{% for x in 1, 2, 3 %}{{ x }}{% endfor %}", "{% for x in l if yes else el %}{{ x }}{% endfor %}", "{% for x in (l if no else el) %}{{ x }}{% else %}E{% endfor %}",
    "{% for x in l %}{{ loop.index }}/{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.depth }}{{ loop.depth0 }} {% endfor %}", "{% for x in l %}{{ loop.previtem is defined }}{{ loop.nextitem is defined }}{% endfor %}", "{% for x in l|map('abs') %}{{ loop.length }}{{ loop.last }}{% endfor %}", "{% for x in l %}{{ loop.nope }}{{ loop['index'] }}{{ loop.nope is defined }}{% endfor %}", "{% for x in l %}{{ loop.nope.x }}{% endfor %}",
    "{% set x = 'o' %}{% for y in l %}{{ x }}{% set x = y %}{{ x }}{% endfor %}{{ x }}", "{% for y in l %}{{ x is defined }}{% set x = y %}{% endfor %}{{ x is defined }}", "{% for i in l %}{{ i }}{% endfor %}{{ i }}", "{% for y in l %}{% if loop.first %}{% set z = 5 %}{% endif %}{{ z }}{% endfor %}", "{% for x in l %}{% for x in ls %}{{ x }}{% endfor %}{{ x }}{% endfor %}", "{% for x in l %}{% for y in ll %}{{ loop.index }}{% endfor %}{{ loop.index }};{% endfor %}", "{% for x in ll %}{% for y in x %}{{ loop.index }}{{ loop.first }}{% endfor %}|{% endfor %}",
    "{% for x in l %}{% if x == 1 %}{% break %}{% endif %}{{ x }}{% endfor %}", "{% for x in l %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% endfor %}", "{% for x in l %}{% for y in l %}{% if y == 1 %}{% break %}{% endif %}{{ y }}{% endfor %}{{ x }}{% endfor %}", "{% break %}", "{% continue %}", "{% for x in l %}{% continue %}x{% else %}e{% endfor %}", "{% for x in l %}{% break %}{% else %}e{% endfor %}", "{% for x in l %}{% for y in el %}{% else %}{% break %}{% endfor %}{{ x }}{% endfor %}", "{% if yes %}{% break %}{% endif %}",
    "{% for x in l %}", "{% for x %}{% endfor %}", "{% for in l %}{% endfor %}", "{% for 1 in l %}{% endfor %}", "{% for x.y in l %}{% endfor %}", "{% for true in l %}{% endfor %}", "{% for x in %}{% endfor %}",
    "{% set x = 5 %}{{ x }}", "{% set x %}a{{ i }}b{% endset %}[{{ x }}]", "{% set x | upper %}abc{% endset %}{{ x }}", "{% set x | trim | upper %} abc {% endset %}{{ x }}", "{% set x %}\n  a\n{% endset %}[{{ x }}]", "{% set a, b = 1, 2 %}{{ a }}{{ b }}", "{% set a, b = l %}", "{% set a, b, c = l %}{{ c }}", "{% set (a, b) = (1, 2) %}{{ b }}", "{% set x = 1, 2 %}{{ x }}", "{% set x = %}", "{% set 1 = 2 %}", "{% set x.y = 1 %}", "{% set d.y = 1 %}", "{% set x[0] = 1 %}", "{% set true = 1 %}", "{% set x = 1 if no %}{{ x is defined }}", "{% set x = x %}{{ x is defined }}", "{% set i = i + 1 %}{{ i }}", "{% set x %}{% set y = 1 %}{{ y }}{% endset %}{{ x }}{{ y is defined }}", "{% set x = 1 %}{% set x = x + 1 %}{{ x }}", "{% set x %}", "{% set range = 5 %}{{ range }}", "{% set tools = [1] %}{{ tools }}",
    "{% set ns = namespace() %}{% set ns.x = 1 %}{{ ns.x }}{{ ns.y }}", "{% set ns = namespace(x=0) %}{% for y in l %}{% set ns.x = ns.x + y %}{% endfor %}{{ ns.x }}", "{% set ns = namespace(a=[]) %}{% for y in l %}{% set ns.a = ns.a + [y] %}{% endfor %}{{ ns.a }}", "{% set ns = namespace(x=1) %}{{ ns }}", "{% set ns = namespace(items=5) %}{{ ns.items }}", "{% set ns = namespace(x=1) %}{% if ns.x %}y{% endif %}{{ ns is defined }}{{ ns is mapping }}{{ ns is iterable }}{{ ns is sequence }}", "{% set ns.x = 1 %}", "{% set nope.x = 1 %}", "{% set i.x = 1 %}", "{% set ns = namespace() %}{% set ns.x %}block{% endset %}{{ ns.x }}", "{% set ns = namespace(x=1) %}{% set ns.x, y = 5, 6 %}{{ ns.x }}{{ y }}", "{% set ns = namespace(done=false) %}{% for x in range(5) if not ns.done %}{{ x }}{% if x == 2 %}{% set ns.done = true %}{% endif %}{% endfor %}", "{% set ns = namespace(done=false) %}{% for x in range(5) if not ns.done %}{{ x }}{{ loop.length }}{% set ns.done = true %}{% endfor %}", "{% set ns = namespace(n=0) %}{% for x in range(5) if x > ns.n %}{{ x }}{{ loop.last }}{% set ns.n = 3 %}{% endfor %}",
    "{% macro m(a, b=2) %}[{{ a }}{{ b }}]{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(b=5, a=4) }}{{ m() }}", "{% macro m(a, b=a) %}{{ b }}{% endmacro %}{{ m(7) }}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(z=2) }}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, a=2) }}", "{% macro m(a) %}{{ a is defined }}{{ a.x }}{% endmacro %}{{ m() }}", "{% macro m(a) %}{{ a is defined }}{% endmacro %}{{ m() }}", "{% macro m(a=1, b) %}{% endmacro %}", "{% macro m %}{% endmacro %}", "{% macro m() %}", "{% macro m() %}{% set x = 1 %}{% endmacro %}{{ m() }}{{ x is defined }}", "{% set x = 1 %}{% macro m() %}{{ x }}{% endmacro %}{% set x = 2 %}{{ m() }}", "{% macro m() %}{{ x }}{% endmacro %}{% set x = 2 %}{{ m() }}", "{{ m() }}{% macro m() %}x{% endmacro %}", "{% macro f(n) %}{% if n > 0 %}{{ n }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(5) }}", "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}", "{% macro m(x) %}{{ x }}{% endmacro %}{{ m('a') ~ m('b') | upper }}", "{% macro m() %}{{ i }}{% endmacro %}{% for i in l %}{{ m() }}{% endfor %}", "{% for x in l %}{% macro m() %}{{ x }}{% endmacro %}{{ m() }}{% endfor %}", "{% macro m(x) -%}\n  {{ x }}\n{%- endmacro %}{{ m(1) }}|", "{% macro m() %}x{% endmacro %}{{ m is callable }}{{ m is defined }}{{ m.name }}", "{% macro m() %}{% for x in l %}{{ x }}{% if x == 1 %}{% break %}{% endif %}{% endfor %}{% endmacro %}{{ m() }}", "{% for x in l %}{% macro m() %}{% break %}{% endmacro %}{% endfor %}", "{% macro m(l) %}{{ l | length }}{% endmacro %}{{ m('abcd') }}", "{% macro m() %}a{% endmacro %}{{ m() | length }}{{ m() is string }}", "{% macro m(a, a) %}{% endmacro %}", "{% macro m(x='<') %}{{ x }}{% endmacro %}{{ m() + '<' }}",
    "{% for x in l %}{{ i }}{% endfor %}{% set i = 1 %}{{ i }}", "{{ i }}{% for x in l %}{{ i }}{% endfor %}{% set i = 1 %}{{ i }}", "{% for x in l %}{{ i }}{% endfor %}{% if yes %}{% set i = 1 %}{% endif %}{{ i }}", "{% for x in l %}{{ i }}{% endfor %}{% if yes %}{% set i = 1 %}{% elif no %}{% set i = 2 %}{% else %}{% set i = 3 %}{% endif %}{{ i }}", "{% macro m() %}{{ i }}{{ s }}{% endmacro %}{{ m() }}{% set i = 1 %}{{ m() }}", "{% set s %}[{{ s }}]{% endset %}{{ s }}", "{% set s | upper %}[{{ s | default('none') }}]{% endset %}{{ s }}", "{% for x in l %}{% for y in ls %}{{ i }}{% endfor %}{% set i = x %}{% endfor %}{{ i }}", "{% for x in l %}{{ s }}{% for y in ls %}{{ s }}{% endfor %}{% set s = x %}{{ s }}{% endfor %}{{ s }}", "{% set i = 4 %}{% for x in l %}{% for y in ls %}{{ i }}{% endfor %}{% set i = x %}{% endfor %}{{ i }}", "{% for x in l %}{{ range is defined }}{% endfor %}{% set range = 1 %}", "{% macro m(i=i) %}{{ i }}{% set s = 1 %}{{ s }}{% endmacro %}{{ m() }}{{ s }}", "{% macro m(i=i, s=q, q=1) %}{{ i }}{{ s }}{{ q }}{% endmacro %}{{ m() }}{{ m(q=2) }}{{ m(1, 2, 3) }}", "{% filter upper %}{{ s }}{% set s = 'x' %}{{ s }}{% endfilter %}{{ s }}", "{% filter upper %}{{ q }}{% filter trim %}{{ s }}{% endfilter %}{% set s = 'x' %}{% endfilter %}{{ s }}", "{% for x in el %}{% else %}{% for y in l %}{{ s }}{% endfor %}{% set s = 'x' %}{{ s }}{% endfor %}{{ s }}", "{% for x in l %}{{ i }}{% endfor %}{% set (i, j) = (1, 2) %}{{ i }}", "{% for x in l %}{{ ns }}{% endfor %}{% set ns = namespace(a=1) %}{% set ns.a = 2 %}{{ ns.a }}", "{% generation %}{{ i }}{% endgeneration %}{% macro i() %}{% endmacro %}", "{% for x in l if x != i %}{{ x }}{% endfor %}{% set i = 1 %}", "{{ 1 if i is defined else 2 }}{% for x in l %}{{ i }}{% endfor %}{% set i = 1 %}",
    "{% if yes %}{{ i }}{% else %}{{ i | nosuch }}{% endif %}", "{% if no %}{% for x in l %}{% if x is nosuch %}{% endif %}{% endfor %}{% endif %}ok", "{% if no %}{{ x is nosuch }}{% elif no and (s | nosuch) %}{% else %}ok{% endif %}", "{% if s | nosuch %}{% endif %}",
    "{% generation %}x{{ i }}{% endgeneration %}", "{% generation %}{% set y = 1 %}{% endgeneration %}{{ y is defined }}", "{% for x in l %}{% generation %}{{ x }}{{ loop.index }}{% endgeneration %}{% endfor %}", "  {% generation %}\n x\n  {% endgeneration %}\n", "{% generation %}",
    "{% filter upper %}a{{ s }}{% endfilter %}", "{% filter trim | upper %} a {% endfilter %}", "{% filter replace('a', 'b') %}banana{% endfilter %}", "{% filter nosuch %}{% endfilter %}", "{% filter upper %}",
    "{% include 'x' %}", "{% extends 'x' %}", "{% import 'x' as y %}", "{% do 1 %}", "{% nosuch %}", "{% call m() %}{% endcall %}", "{% 1 %}", "{% trans %}x{% endtrans %}",
    "{{ s }}{# x #}{{ i }}", "{{s}}{{i}}", "{{ s\n }}", "{%\n if yes\n %}x{%\n endif\n %}", "{{ 'a\nb' }}", "{{ \"a\r\nb\" }}", "{{- '\n' }}a{{ '\n' -}} \n b", "é{{ '日本' }}\n{{ u }}", "{{ s|upper }}{{ s |upper }}{{ s| upper }}", "{{ 1 -}}", "{{ 1 - }}", "{{ -1 -}} x", "{{+ 1 }}", "{{ 1 +}}", "{% set x = 1 -%}\n\n y", "{{ '%}' }}{{ '#}' }}{# {{ }} {% %} #}", "{{ (1,\n2) }}",
    "{% for m in people %}{{- '<|im_start|>' + m.name + '\n' }}{% if not loop.last %}{{ ', ' }}{%- endif %}\n{% endfor %}", "{{ [1,2,3] | select('odd') | map('string') | join('-') }}", "{% set x = l | map('abs') %}{{ x | list }}{{ x | list }}", "{% set x = l | map('abs') %}{{ x | first }}{{ x | first }}{{ x | list }}", "{% set x = l | reverse %}{{ 1 in x }}{{ x | list }}", "{% set x = d | items %}{% for k, v in x %}{{ k }}{% endfor %}{% for k, v in x %}{{ k }}{% endfor %}", "{% set x = l | map('abs') %}{% if x %}t{% endif %}{{ x | length }}",
]

# What Jinja has and ours refuses by name.
REFUSED = ["{{ (-8) ** 0.5 }}", '{{ "\\N{BULLET}" }}', "{{ l[1, 2] }}", "{{ s.format(1) }}", "{{ s.encode() }}", "{{ self }}", "{{ d.b.real }}", "{{ i.bit_length() }}", "{{ 'a'.zfill(3) }}", "{{ 2 ** 64 }}",
           "{{ big * big }}", "{{ 99999999999999999999 }}", "{{ s.upper }}", "{{ l | map('string') }}", "{{ s | batch(2) | list }}", "{{ '%s' % 1 }}", "{{ s | wordcount }}", "{{ lipsum() }}", "{{ cycler(1) }}", "{{ joiner() }}",
           "{% for x in l %}{{ loop.cycle(1, 2) }}{% endfor %}", "{% for x in l %}{{ loop.changed(x) }}{% endfor %}", "{% for x in l recursive %}{% endfor %}", "{% with a = 1 %}{{ a }}{% endwith %}", "{% block b %}{% endblock %}", "{{ dict(*[]) }}", "{{ dict(**{}) }}",
           "{% macro m() %}{{ varargs }}{% endmacro %}{{ m() }}", "{% macro m() %}{{ kwargs }}{% endmacro %}{{ m() }}", "{{ f | round(-1) }}", "{{ 1 is sameas 1 }}", "{% print 1 %}", "{% autoescape true %}{% endautoescape %}", "{{ 'a b'.rsplit(none, 1) }}", "{{ '²'.isdigit() }}"]


def snippets():
    return ["{{ " + e + " }}" for e in EXPRESSIONS] + STATEMENTS


class Grammar:
    """Random expressions and statements, mostly well typed, so that most of them render."""

    def __init__(self, seed):
        self.r = random.Random(seed)

    def pick(self, *options):
        return self.r.choice(options)

    def name(self):
        return self.r.choice(list(VARIABLES) + ["nope", "x", "y"])

    def literal(self):
        r = self.r
        return r.choice([
            lambda: str(r.randint(-5, 12)), lambda: repr(round(r.uniform(-9, 9), r.randint(0, 3))),
            lambda: r.choice(["true", "false", "none"]), lambda: repr(r.choice(["", "a", "ab", "B c", " x ", "é", "日本", "<&>", "a,b", "12", "-3.5", "\n", "it's"])),
            lambda: r.choice(["1e16", "1e-5", "0.1", "5e-7", "100", "3.0"]),
        ])()

    def text(self, n):
        return self.pick("s", "e", "q", "sp", "u", "csv", "lines", "html", self.literal(), f"({self.expr(n - 1)}) | string", f"'{self.pick('a', 'x', 'A')}'")

    def seq(self, n):
        return self.pick("l", "ls", "mixed", "ll", "el", "people", "d", "s", f"range({self.r.randint(0, 6)})", f"[{self.expr(n - 1)}, {self.expr(n - 1)}]", f"({self.expr(n - 1)},)", "d.items()", "d.values()", "ls | map('upper')", f"{self.pick('l', 'ls', 's', 'll')}{self.slice()}")

    def slice(self):
        part = lambda: self.pick("", "", "1", "-1", "2", "-3", "0")
        return f"[{part()}:{part()}" + self.pick("", ":" + self.pick("", "-1", "2", "-2")) + "]"

    def method(self, n):
        t = f"({self.text(n)})"
        a = self.pick("'a'", "' '", "','", "'l'", "''", "'\\n'", "none", "1")
        return t + self.pick(f".split({a})", f".split({a}, {self.r.randint(-1, 3)})", ".split()", f".strip({a})", ".strip()", f".lstrip({a})", ".rstrip()", f".startswith({a})", f".endswith({a})", f".replace({a}, 'Z')", f".replace({a}, '', {self.r.randint(-1, 3)})", ".upper()", ".lower()", ".title()", ".capitalize()", f".find({a})", f".rfind({a})", f".count({a})", ".splitlines()", f".rsplit('z', 1)", f".join({self.seq(n)})", ".isspace()", ".islower()", f".removeprefix({a})")

    def filtered(self, n):
        r = self.r
        if r.random() < 0.5:
            return f"({self.text(n)}) | " + self.pick("upper", "lower", "title", "capitalize", "trim", "length", "list", "first", "last", "reverse", "string", "tojson", "int", "float", "escape", "safe", "replace('a', 'b')", "indent", "indent(2, true)", "default('D')", "default('D', true)", "trim('a ')", "tojson(ensure_ascii=true)", "e")
        return f"({self.seq(n)}) | " + self.pick("length", "list", "first", "last", "sort", "sort(reverse=true)", "sort(attribute='name')", "join", "join(', ')", "reverse | list", "tojson", "tojson(indent=2)", "string", "sum", "min", "max", "unique | list", "map('string') | list", "map('upper') | join('/')", "map(attribute='name') | list", "map('length') | list", "select | list", "reject | list", "select('string') | list", "reject('number') | join", "selectattr('age', 'gt', 26) | list", "selectattr('tags') | list | length", "items | list", "dictsort", "default(1)", "select('in', [1, 2, 'a']) | list", "map(attribute='0') | list", "tojson(sort_keys=true, separators=(',', ':'))")

    def test(self, n):
        return f"({self.expr(n - 1)}) is {self.pick('', 'not ')}" + self.pick("defined", "undefined", "none", "string", "mapping", "sequence", "iterable", "number", "integer", "float", "boolean", "true", "false", "callable", "odd", "even", "divisibleby 3", "eq 1", "in [1, 'a', none]", "gt 2", "lower", "upper")

    def expr(self, n):
        r = self.r
        if n <= 0:
            return self.pick(self.name(), self.literal())
        e = lambda: self.expr(n - 1)
        return r.choice([
            self.name, self.literal, lambda: self.method(n), lambda: self.filtered(n), lambda: self.test(n), lambda: self.filtered(n), lambda: self.method(n),
            lambda: f"{e()} {self.pick('+', '-', '*', '/', '//', '~', '~', '~', '+')} {e()}",
            lambda: f"({e()}) {self.pick('==', '!=', '<', '<=', '>', '>=', 'in', 'not in')} ({e()})",
            lambda: f"({e()}) {self.pick('and', 'or')} ({e()})", lambda: f"not {e()}", lambda: f"({e()}) if ({e()}) else ({e()})", lambda: f"({self.seq(n)}){self.slice()}", lambda: f"({self.seq(n)})[{self.pick('0', '-1', '1', '5')}]",
            lambda: f"[{e()}, {e()}]", lambda: "{'k': %s, %s: %s}" % (e(), self.literal(), e()), lambda: f"({e()}, {e()})", lambda: f"d.{self.pick('a', 'b', 'items()', 'keys() | list', 'n', 'nope', 'get(%r)' % 'a')}", lambda: f"-({e()})",
            lambda: f"{self.pick('1', 'i', 'f', '2.5', '10')} {self.pick('+', '-', '*', '/', '//', '%', '**')} {self.pick('2', '3', 'i', 'g', '-2', '0.5')}",
        ])()

    def space(self):
        return self.pick("", "", " ", "\n", "  \n ", "text", "\n\n", " . ", "\t")

    def tag(self, inside):
        return "{%" + self.pick("", "", "-", "+") + " " + inside + " " + self.pick("", "", "-", "+") + "%}"

    def statement(self, n):
        body = lambda: "".join(self.space() + self.statement(n - 1) for _ in range(self.r.randint(0, 2))) + self.space()
        if n <= 0:
            return "{{" + self.pick("", "-") + " " + self.expr(2) + " " + self.pick("", "-") + "}}"
        kind = self.r.randrange(8)
        if kind == 0:
            return self.tag("if " + self.expr(2)) + body() + self.pick("", self.tag("elif " + self.expr(1)) + body()) + self.pick("", self.tag("else") + body()) + self.tag("endif")
        if kind == 1:
            return self.tag(f"for {self.pick('x', 'y')} in {self.seq(1)}" + self.pick("", f" if {self.expr(1)}")) + body() + self.pick("", "{{ loop.index }}", "{{ x }}", "{{ loop.last }}{{ loop.length }}", self.tag("if loop.index == 2") + self.tag(self.pick("break", "continue")) + self.tag("endif") + "z") + self.pick("", self.tag("else") + body()) + self.tag("endfor")
        if kind == 2:
            return self.tag(f"set {self.pick('x', 'y')} = {self.expr(2)}")
        if kind == 3:
            return self.tag(f"set {self.pick('x', 'y')}" + self.pick("", " | upper", " | trim")) + body() + self.tag("endset") + "{{ x }}"
        if kind == 4:
            return self.tag("macro m(x, y=1)") + body() + "{{ x }}" + self.tag("endmacro") + "{{ m(" + self.expr(1) + self.pick("", ", y=2", ", 3") + ") }}"
        if kind == 5:
            return "{#" + self.pick("", "-") + " c " + self.pick("", "-") + "#}" + body()
        return self.statement(0)


def random_snippets(count, seed):
    g = Grammar(seed)
    out = []
    for k in range(count):
        if k % 2 == 0:
            out.append("{{ " + g.expr(3) + " }}")
        else:
            out.append("".join(g.space() + g.statement(2) for _ in range(g.r.randint(1, 3))) + g.space())
    return out
