#!/usr/bin/env python3
"""The demo model's tasks as batch lines, and the share of its answers that are right.

    grade.py requests GRADING                    prints batch lines
    grade.py answers GRADING ANSWERS LIMIT       exit code 1 below LIMIT
"""

import json
import sys


def tasks(path):
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def print_requests(grading):
    for task in tasks(grading):
        messages = [{"role": "user", "content": task["question"]}]
        body = {"messages": messages, "max_tokens": 192, "temperature": 0}
        print(json.dumps({"custom_id": task["id"], "url": "/v1/chat/completions", "body": body}))


def answer_of(line):
    choices = ((line.get("response") or {}).get("body") or {}).get("choices") or []
    return choices[0]["message"]["content"].strip() if choices else None


def grade(grading, answers, limit):
    given = {line["custom_id"]: answer_of(line) for line in tasks(answers)}
    asked = tasks(grading)
    right = sum(given.get(task["id"]) == task["expected"] for task in asked)
    print(f"graded {right} of {len(asked)} right, at least {limit}")
    return right >= limit * len(asked)


def main(arguments):
    if len(arguments) == 2 and arguments[0] == "requests":
        print_requests(arguments[1])
        return 0
    if len(arguments) == 4 and arguments[0] == "answers":
        return 0 if grade(arguments[1], arguments[2], float(arguments[3])) else 1
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
