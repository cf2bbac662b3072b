"""Many streaming clients on a real server, a third of which leave half-way: nothing lost, nothing mixed up, nothing
kept.

usage: soak.py TESSERA DEMO_FOLDER [REQUESTS [CLIENTS [RANKS]]]

Prints requests a second, the share that was answered right, and memory after one half and both.
"""

import asyncio
import json
import os
import random
import socket
import subprocess
import sys
import time

TESSERA, DEMO = sys.argv[1:3]
REQUESTS, CLIENTS, RANKS = [int(n) for n in sys.argv[3:6]] + [400, 200, 4][len(sys.argv) - 3:]
QUESTIONS = [json.loads(line) for line in open(os.path.join(DEMO, "grading.jsonl"))]
GROWTH_KIB = 24 << 10  # of the second half


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


PORT = free_port()


async def send(method, path, body=b""):
    reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
    await writer.drain()
    status = int((await reader.readline()).split()[1])
    while await reader.readline() not in (b"\r\n", b""):
        pass
    return status, reader, writer


async def get(path):
    status, reader, writer = await send("GET", path)
    data = await reader.read()
    writer.close()
    return status, data.decode()


async def ask(question, leaves):
    """The answer, None of a client that has left."""
    body = {"messages": [{"role": "user", "content": question["question"]}], "max_tokens": 192,
            "temperature": 0, "stream": True}
    status, reader, writer = await send("POST", "/v1/chat/completions", json.dumps(body).encode())
    assert status == 200, (status, await reader.read())
    said = ""
    while True:
        line = await reader.readline()
        assert line, "a stream without an end"
        if line.startswith(b"data: [DONE]"):
            break
        if not line.startswith(b"data: "):
            continue
        event = json.loads(line[6:])
        assert "error" not in event, event
        said += event["choices"][0]["delta"].get("content", "")
        if leaves and said:
            writer.transport.abort()
            return None
    writer.close()
    return said.strip()


async def client(numbers, counts):
    for number in numbers:
        question = QUESTIONS[number % len(QUESTIONS)]
        leaves = number % 3 == 0
        if leaves and random.random() < 0.3:  # some before the first token
            task = asyncio.create_task(ask(question, False))
            await asyncio.sleep(random.random() * 0.05)
            task.cancel()
            counts["left"] += 1
            continue
        said = await ask(question, leaves)
        counts["left" if said is None else "right" if said == question["expected"] else "wrong"] += 1


async def gauge(name):
    _, text = await get("/metrics")
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name + "{"))


async def settle():
    for _ in range(200):
        if await gauge("vllm:num_requests_running") + await gauge("vllm:num_requests_waiting") == 0:
            return
        await asyncio.sleep(0.1)
    raise AssertionError("requests that nobody waits for still run")


def rss_kib(pids):
    total = 0
    for pid in pids:
        for line in open(f"/proc/{pid}/status"):
            total += int(line.split()[1]) if line.startswith("VmRSS") else 0
    return total


def processes():
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = open(f"/proc/{pid}/cmdline", "rb").read().split(b"\0")
        except OSError:
            continue
        if os.path.basename(words[0]) == b"tessera" and str(PORT).encode() in words:
            found.append(int(pid))
    return found


async def load(count):
    counts = {"left": 0, "right": 0, "wrong": 0}
    numbers = iter(range(count))
    start = time.monotonic()
    await asyncio.gather(*[client(numbers, counts) for _ in range(CLIENTS)])
    await settle()
    return counts, time.monotonic() - start


async def soak():
    for _ in range(600):
        try:
            if (await get("/health"))[0] == 200:
                break
        except OSError:
            pass
        await asyncio.sleep(0.1)
    await load(CLIENTS * 2)
    counts, seconds = await load(REQUESTS // 2)  # what grows once has grown: arenas, blocks of the cache
    before = rss_kib(processes())
    more, more_seconds = await load(REQUESTS - REQUESTS // 2)
    after = rss_kib(processes())
    counts = {name: counts[name] + more[name] for name in counts}
    seconds += more_seconds
    answered = counts["right"] + counts["wrong"]
    print(f"{REQUESTS} requests by {CLIENTS} clients in {seconds:.1f} s: {REQUESTS / seconds:.1f}/s, "
          f"{counts['left']} left, {counts['right']} of {answered} right, "
          f"{before >> 10} MiB after a half, {after >> 10} after all")
    assert counts["left"] + answered == REQUESTS
    assert counts["right"] >= 0.99 * answered, counts
    assert after - before < GROWTH_KIB, (before, after)


server = subprocess.Popen([TESSERA, "serve", DEMO, "--port", str(PORT), "--ranks", str(RANKS),
                           "--log-level", "warn",
                           # known blocks fill the cache, which is memory that was planned but not touched
                           "--no-enable-prefix-caching"])
try:
    asyncio.run(soak())
    server.terminate()
    code = server.wait(timeout=30)
    assert code == 0, code
finally:
    server.kill()
