"""Small templates for make_template_golden.py: one line per feature and edge, and random ones."""
import random

VARIABLES = {
    "s": "Hello, Wörld", "e": "", "q": "it's \"quoted\" \\ \n", "sp": "  \t pad\u00a0ded \n", "u": "ÀÉß ŉ ǆ Σας ΟΔΟΣ İıſ 日本 👩‍👧 ﬁ",
    "csv": "a,b,,c", "lines": "one\ntwo\r\nthree\n\nfive\u2028six", "html": "<b>&'\"</b>", "digits": "42", "fl": "42.75", "think": "<think>\nx\n</think>\n\nans",
    "i": 7, "z": 0, "neg": -3, "big": 9007199254740993, "f": 2.5, "g": -0.1, "h": 1e16, "tiny": 1.5e-7, "whole": 3.0, "yes": True, "no": False, "nil": None,
    "l": [3, 1, 2], "ls": ["b", "A", "c", "a"], "mixed": [1, "x", None, True, 2.5, [1, [2]], {"k": "v"}], "el": [], "ll": [[1, 2], [3, 4]],
    "d": {"b": 1, "a": {"x": [1, 2], "y": None}, "items": "shadowed", "n": 0, "C": 2}, "ed": {}, "dk": {"1": "one", "k e y": True},
    "people": [{"name": "Bob", "age": 30, "tags": ["x"]}, {"name": "alice", "age": 25, "tags": []}, {"name": "Carl", "age": 30}],
}

EXPRESSIONS = """
1
-1
--1
+1
1 + 2 * 3
(1 + 2) * 3
7 // 2
-7 // 2
7 % 3
-7 % 3
7 % -3
7 / 2
6 / 2
2 ** 10
2 ** -1
2 ** 3 ** 2
-2 ** 2
2.5 ** 2
7.5 // 2
-7.5 % 2
7.5 % -2
0 // 5
1 / 0
1 // 0
1 % 0
1.0 / 0
0 ** -1
0 ** 0
1e308 * 10
1_000 + 0x1F + 0b101 + 0o17
00
1.5e3
1e5
1E-5
0.1 + 0.2
1e15
1e16
123456789012345680.0
1e-4
1e-5
1.0
100.0
-0.0
3.14159
5e-324
1.7976931348623157e308
9007199254740993
1 / 3
i / f
i * f
i + yes
yes + yes
yes * 3
i - no
big + 1
'a' 'b' "c"
'a' + 'b'
'a' * 3
3 * 'a'
'a' * -1
'a' + 1
1 + 'a'
'a' ~ 1 ~ none ~ 2.0 ~ [1] ~ true
nil ~ e
'a' - 'b'
[1] + [2, 'x']
[1, 2] * 2
[1] + (2,)
(1,) + (2,)
[1] * 0
{} + {}
none + 1
-'a'
-nil
-yes
+yes
'\\n\\t\\\\\\'\\"\\x41\\u00e9\\U0001F600\\101\\q'
"tab\\there"
'line\\
continued'
'é\\é'
'\\x4'
[]
[1, 'a', none, true, 2.0, [1], {'k': 'v'}, (1,), (), (1, 2)]
[1,]
(1,)
()
(1)
(1, 2)
1, 2
{}
{'a': 1, 'b': [2], 3: 'c', none: 4, true: 5, 1.5: 6, (1, 2): 7}
{1: 'a', true: 'b', 1.0: 'c'}
{[]: 1}
{{}: 1}
{'a': 1, 'a': 2}
['it\\'s', 'say "hi"', 'both \\' and "', 'back\\\\slash', 'nl\\n', '\\x00\\x1f\\x7f', 'é\\u00a0\\u200b\\ufeff😀']
q
[q]
[sp]
[u]
mixed
d
ed
el
[html|safe]
[undefinedthing]
yes
nil
[nil, yes, no]
d.b
d['b']
d.a.x[1]
d.a['x'][-1]
d.missing
d.missing.deeper
d['missing']
d['missing']['deeper']
d.items
d['items']
d.items()
d.keys()
d.values()
d.keys() | list
d.values() | list | length
d.items() | list
d.get('b')
d.get('zz')
d.get('zz', 5)
d.get()
d.get('a').get('y')
d.get([])
d.copy()
d.pop('b')
d.update({})
d.clear()
d.clear
d.setdefault('q', 1)
dk['1']
dk[1]
dk['k e y']
d.__class__
d.__class__.__mro__
s.__class__
s.upper
d._private
l.append(1)
l.append
l.pop()
l.sort()
l.count(1)
l.index(2)
l.index(9)
l.foo
l[0]
l[-1]
l[3]
l[-4]
l['a']
l[1.0]
l[true]
l[nil]
l.0
l.5
ll.0.1
l[0:2]
l[:-1]
l[1:]
l[::-1]
l[::2]
l[-2:]
l[5:]
l[2:0:-1]
l[::0]
l['a':]
l[none:none]
s[0]
s[-1]
s[100]
s[0:5]
s[7:]
s[::-1]
u[::-1]
u[1:4]
u[-3:]
s['upper']
s['nope']
s[1:2][0]
e[0]
e[:1]
i[0]
i[0:1]
nil[0]
nil.x
nil.x.y
i.x
f.x
yes.x
d[0:1]
range(5)[1:3]
range(5)
range(1, 10, 3)
range(10, 0, -3) | list
range(0)
range(3)[1]
range(3) | length
range(1, 2, 0)
range('a')
range(2.0)
range(1000000)
range(100000) | length
range()
1 < 2
1 < 2 < 3
1 < 3 < 2
3 > 2 > 1
1 == 1.0
1 == true
0 == false
'1' == 1
nil == none
nil == false
nil != 0
[] == ()
[1, 2] == [1, 2]
[1] == [1.0]
{'a': 1} == {'a': 1.0}
{'a': 1, 'b': 2} == {'b': 2, 'a': 1}
'a' < 'b'
'a' < 'B'
'é' > 'z'
'a' < 1
none < 1
none == nope
nope == other
nope < 1
[1] < [2]
[1, 2] < [1]
[1, 'a'] < [1, 2]
[[]] < [[1]]
(1, 2) <= (1, 2)
[1] <= (1,)
{} < {}
1 <= 1.0
2 >= 3
true > false
big == 9007199254740992.0
big > 9007199254740992.0
'a' in 'abc'
'' in 'abc'
1 in 'abc'
nil in 'abc'
1 in [1, 2]
1.0 in [1, 2]
'b' in d
'zz' not in d
[] in d
1 in i
'x' in nope
nope in [1]
nope in 'abc'
'b' in d.keys()
1 in range(3)
not 1
not not ''
not nope
not 'a' == 'b'
1 and 2
0 and 2
'' or 'x'
none or []
1 or nope.x
0 and nope.x
nope and 1
nope or 'dflt'
1 if true else 2
1 if false else 2
1 if false
(1 if false) is defined
1 if nope else 2 if 0 else 3
'a' if 1 and 0 else 'b'
nope
nope.x
nope['x']
nope()
nope + 1
1 + nope
nope ~ 'x'
nope | length
nope | list
nope | upper
nope | default('x')
nope | default
nope | d('x', true)
nope | string
nope | tojson
nope | int
nope | first
nope | last
nope | join(',')
nope | items | list
nope | trim
nope | replace('a', 'b')
nope | reverse | list
nope | sort
nope | map('upper') | list
nope | sum
nope | abs
nope | round
nope | float
nope is defined
nope is undefined
nope is none
nope is string
nope is sequence
nope is iterable
nope is mapping
nope is number
nope is callable
nope is true
nope is false
nope is eq nope
s is string
s is sequence
s is iterable
s is mapping
l is sequence
l is iterable
l is string
d is sequence
d is iterable
d is mapping
d.items() is sequence
d.items() is iterable
range(2) is sequence
(l | map('string')) is sequence
(l | map('string')) is iterable
i is number
i is integer
i is float
f is number
f is integer
f is float
yes is number
yes is integer
yes is boolean
i is boolean
yes is true
no is true
no is false
1 is true
nil is none
nil is not none
nil is defined
d.b is defined
d.zz is defined
d.a.y is defined and d.a.y is none
s.upper is callable
range is callable
s is callable
namespace is callable
i is odd
i is even
neg is odd
f is even
s is odd
i is divisibleby 7
i is divisibleby(2)
i is divisibleby 0
i is eq 7
i is equalto(7)
i is ne 8
i is gt 3
i is lt 3
i is ge 7
i is le 6
i is lessthan 'a'
3 is in l
3 is in [1]
s is lower
'abc' is lower
'ABC' is upper
'123' is upper
i is nosuchtest
x is not
i is not odd
not i is odd
i is odd and l is sequence
i is string or 1
i is defined | string
i is in([7]) is true
s | upper
s | lower
u | upper
u | lower
u | title
u | capitalize
u.title()
u.upper()
u.lower()
u.capitalize()
'hello world-foo (bar)' | title
"they're bill's" | title
"they're bill's".title()
'ΑΣ' | lower
'ΑΣ Σ ΑΣΑ' | lower
i | upper
nil | upper
l | upper
sp | trim
sp.strip()
sp.lstrip()
sp.rstrip()
'xxaxx' | trim('x')
'xxaxx'.strip('x')
'abcba'.lstrip('ab')
'abcba'.rstrip('ba')
'xyz'.strip('')
'xyz'.strip(none)
'xyz'.strip(1)
'\\n\\nx\\n'.strip('\\n')
'日本日'.strip('日')
csv.split(',')
csv.split(',', 1)
csv.split(',', -1)
csv.split(',', maxsplit=2)
csv.split(sep=',')
csv.split('')
csv.split('zz')
e.split()
e.split(',')
'  a  b c '.split()
'  a  b c '.split(none, 1)
'  a  b c '.split(' ')
'a b'.split(1)
csv.rsplit(',', 1)
csv.rsplit(',')
csv.rsplit('zz', 1)
think.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n')
think.split('</think>')[-1].lstrip('\\n')
think.split('</think>')[5]
lines.splitlines()
lines.splitlines(true)
e.splitlines()
s.startswith('Hello')
s.startswith('')
s.startswith(('x', 'He'))
s.startswith(1)
s.startswith('llo', 2)
s.endswith('ld')
s.endswith(('a', 'd'))
s.endswith('o', 0, 5)
s.startswith()
s.replace('l', 'L')
s.replace('l', 'L', 1)
s.replace('l', 'L', 0)
s.replace('', '-')
s.replace('', '-', 3)
e.replace('', '-')
s.replace('zz', 'y')
s.replace('l')
s.replace(1, 2)
s | replace('l', 'L')
s | replace('l', 'L', 2)
s | replace('o', 0)
i | replace('7', 'x')
l | replace(',', ';')
'-'.join(ls)
'-'.join(l)
'-'.join('abc')
'-'.join(d)
'-'.join(1)
s.find('o')
s.find('zz')
s.find('l', 4)
u.find('日')
s.rfind('l')
s.count('l')
s.count('')
e.find('')
e.find('', 1)
'12'.isdigit()
''.isdigit()
'1a'.isdigit()
' '.isspace()
'aB'.islower()
'AB'.isupper()
'abc'.removeprefix('a')
'abc'.removesuffix('c')
'abc'.removesuffix('')
s.nosuch
s.nosuch()
s.upper(1)
s.split(',', 1, 2)
s.split(foo=1)
s | length
u | length
l | length
d | length
i | length
nil | length
e | count
l | first
l | last
el | first
el | last
s | first
s | last
d | first
d | last
i | first
d.items() | first
(l | map('abs')) | first
(l | map('abs')) | last
l | sort
l | sort(reverse=true)
ls | sort
ls | sort(case_sensitive=true)
ls | sort(true, true)
people | sort(attribute='age') | map(attribute='name') | join(' ')
people | sort(attribute='age,name') | map(attribute='name') | list
people | sort(reverse=true, attribute='age') | map(attribute='name') | list
people | sort(attribute='zip')
mixed | sort
[nil, nil] | sort
s | sort | join
d | sort
l | reverse
l | reverse | list
s | reverse
d | reverse | list
i | reverse
d | dictsort
d | dictsort(true)
{'b': 1, 'a': 2} | dictsort(by='value')
{'b': 1, 'a': 2} | dictsort(false, 'key', true)
d | dictsort(by='value')
d | dictsort(by='zz')
l | dictsort
d | items
d | items | list
l | items | list
[('a', 1)] | items | list
l | join
l | join(', ')
l | join(1)
mixed | join('|')
s | join('.')
d | join(',')
people | join(', ', attribute='name')
people | join(', ', 'tags')
i | join
[html, html|safe] | join(', ')
l | sum
[1.5, 2] | sum
el | sum
el | sum(start=5)
ls | sum
people | sum(attribute='age')
people | sum('age', 100)
ll | sum(start=[])
l | min
l | max
el | min
ls | min
ls | max
ls | max(case_sensitive=true)
people | min(attribute='age')
mixed | max
[2, 2.0] | max
ls + ['B', 'a'] | unique | list
(ls + ['B', 'a']) | unique | list
(ls + ['B', 'a']) | unique(true) | list
people | unique(attribute='age') | map(attribute='name') | list
[1, true, 1.0, 2] | unique | list
ll | unique | list
s | list
d | list
i | list
l | map('string') | list
l | map('string')
l | map('nosuch') | list
l | map()
el | map() | list
people | map(attribute='name') | list
people | map(attribute='tags.0') | list
people | map(attribute='zip', default='none') | list
people | map(attribute='zip') | list
people | map(attribute='tags', other=1) | list
ls | map('upper') | join(',')
ls | map('replace', 'a', 'b') | join(',')
ls | map('default', boolean=true) | list
ll | map('sum') | list
ll | map('first') | list
ll | map(attribute=0) | list
ll | map(attribute='1') | list
l | select | list
[0, 1, '', 'a', none] | select | list
[0, 1, '', 'a', none] | reject | list
l | select('odd') | list
l | reject('odd') | list
l | select('gt', 1) | list
l | select('in', [1, 2]) | list
l | select('nosuch') | list
people | selectattr('age', 'equalto', 30) | map(attribute='name') | list
people | selectattr('tags') | list | length
people | rejectattr('tags', 'defined') | list | length
people | selectattr('name', 'in', ['Bob']) | list
people | selectattr() | list
people | selectattr('age', '>', 26) | list | length
people | rejectattr('age', '==', 30) | list
nil | select | list
l | map('tojson') | list
i | abs
neg | abs
g | abs
s | abs
yes | abs
f | round
3.5 | round
-2.5 | round
2.675 | round(2)
i | round
i | round(2)
1.25 | round(1)
f | round(0, 'ceil')
f | round(method='floor')
i | round(0, 'ceil')
2.71 | round(1, 'floor')
f | round(1, 'weird')
s | round
digits | int
fl | int
s | int
s | int(-1)
' 12 ' | int
'1_0' | int
'0x1f' | int(base=16)
'ff' | int(0, 16)
'101' | int(0, 2)
'-7' | int
'+7' | int
f | int
-2.9 | int
nil | int
nil | int(5)
l | int
yes | int
'inf' | int
'nan' | int
digits | float
fl | float
s | float
s | float(1.5)
i | float
'1e3' | float
' 2.5 ' | float
'inf' | float
'-infinity' | float
'nan' | float
'0x10' | float
'1_0.5' | float
'.5' | float
'5.' | float
nil | float
e | default('x')
e | default('x', true)
nil | default('x')
nil | d('x', boolean=true)
0 | default(5, true)
d.zz | default(d.b)
d.zz.yy | default(1)
i | string
f | string
nil | string
l | string
mixed | string
d | string
yes | string
html | safe
html | escape
html | e
html | escape | escape
html | safe | escape
(html | safe) + '<i>'
'<i>' + (html | safe)
(html | safe) ~ '<i>'
(html | escape) + (html | escape)
(html | safe).upper() + '<'
(html | safe)[0:2] + '<'
(html | safe) | upper + '<'
(html | safe) | string + '<'
(html | safe) | trim + '<'
(html | safe) | replace('b', '<') + '<'
(html | safe) * 2
(html | safe).replace('b', '<')
(html | safe).split('b')
('<' | safe).join(['>', '&' | safe])
(html | safe) == html
(html | safe) | tojson
i | safe
nil | escape
5 | e + '<'
s | tojson
q | tojson
u | tojson
u | tojson(ensure_ascii=true)
'\\x00\\x1f\\x7f\\u2028' | tojson
'\\x7f😀' | tojson(true)
mixed | tojson
d | tojson
d | tojson(indent=2)
d | tojson(indent=0)
d | tojson(indent='\\t')
mixed | tojson(indent=1)
mixed | tojson(separators=(',', ':'))
d | tojson(separators=(',', ': '), indent=2)
{'b': 1, 'a': [{'d': 1, 'c': 2}]} | tojson(sort_keys=true)
{'b': 1, 2: 2} | tojson(sort_keys=true)
{'b': 1, 2: 2, none: 3, true: 4, 1.5: 5} | tojson
{(1, 2): 3} | tojson
[] | tojson(indent=2)
{} | tojson(indent=2)
[[], {}] | tojson(indent=2)
(1, 2) | tojson
f | tojson
1e16 | tojson
whole | tojson
tiny | tojson
h | tojson
nil | tojson
yes | tojson
range(3) | tojson
d.items() | tojson
l | map('abs') | tojson
namespace(a=1) | tojson
s | tojson(1, 2, 3, 4, 5)
s | tojson(nope=1)
d | tojson(none, none, none, none)
lines | indent
lines | indent(2)
lines | indent(2, true)
lines | indent(2, true, true)
lines | indent(width='> ', blank=true)
'' | indent(2, true)
'a\\n' | indent
'a\\n\\nb' | indent(first=true)
i | indent
s | nosuchfilter
s | upper | lower | title
s | upper()
s | upper(1)
s | default(1, 2, 3)
dict(a=1, b='x')
dict({'a': 1}, b=2)
dict([('a', 1), ['b', 2]])
dict([1])
dict(1)
dict(a=1, a=2)
namespace(a=1).a
namespace(a=1)['a']
namespace({'a': 1}).a
namespace(a=1).b
namespace(a=1)
namespace(1)
raise_exception('no')
s(1)
i()
'%s' is string
1 if yes else raise_exception('x')
foo.bar.baz
d.a.x.1
d.a.x.7
((((1))))
1 +
(1
[1, 2
{'a' 1}
1 2
a b
@
$x
a ? b
'unclosed
l[1:2, 3]
loop
loop.index
1 is defined is defined
d is mapping and d.b is number and d.b > 0
1 ~ 2 + 3
1 + 2 ~ 3
'a' ~ 'b' * 2
2 * 3 ~ 4
not 1 in [1]
-1 | abs
-l[0]
1 - -1
10 - 5 - 2
2 * 3 % 4
1 < 2 == true
'a' 'b' | upper
[1, 2] | length + 1
l | length > 2
l|length - 1
(messages is defined) ~ (tools is defined) ~ (tools is none) ~ add_generation_prompt
true ~ True ~ false ~ False ~ none ~ None
{'a': {'b': [1, {'c': 2}]}}.a.b[1].c
[d.b, d['a'].y, l[0]] | join('/')
'ab' in ['ab'] and 'x' not in 'ab'
{'true': 1}.true
"a" if "b" == 'b' else "c"
[1, 2, 3][1:] + [4]
'abc'[1]
'abc'[1:][0]
(1, 2)[0]
(l, s)[1][0]
[nope, nope]
[1 if false]
{'a': nope}
""".strip("\n").split("\n")
# One expression spans two lines: it is written with a continued line above.
EXPRESSIONS = [x for x in "\n".join(EXPRESSIONS).replace("'line\\\\\ncontinued'", "'line\\\\\x01continued'").split("\n")]
EXPRESSIONS = [x.replace("\x01", "\n").replace("\\\\", "\\") for x in EXPRESSIONS]

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
