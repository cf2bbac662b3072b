#!/usr/bin/env python3
"""The status page, opened in headless Chromium while answers come.

page_cases.py FAKE_SERVER FOLDER TESSERA [PICTURE.png]      exit code 77: no Chromium here
"""

import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading

from server import Server, expect, until

SKIPPED = 77


def browse(browser, url, *options):
    with tempfile.TemporaryDirectory() as profile:
        return subprocess.run(
            [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}",
             "--virtual-time-budget=4000", "--window-size=1200,1150", "--enable-logging=stderr",
             *options, url], capture_output=True, text=True, timeout=120, check=True)


def real_experts(browser, folder, tessera, picture=None):
    """What a real engine counts is what the map shows."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Server.__new__(Server)
    server.port = port
    process = subprocess.Popen([tessera, "serve", folder, "--port", str(port), "--log-level", "error"])
    try:
        until(lambda: can_connect(server), "it does not listen")
        server.wait_ready()
        body = {"prompt": [[10, 20, 30, 40, 17]], "max_tokens": 60, "ignore_eos": True, "temperature": 0}
        server.json("POST", "/v1/completions", body)
        until(lambda: server.json("GET", "/experts")["steps"] >= 60, "nothing is counted")
        experts = server.json("GET", "/experts")
        url = f"http://127.0.0.1:{port}/"
        page = browse(browser, url, "--dump-dom").stdout
        if picture is not None:
            browse(browser, url, f"--screenshot={picture}")
    finally:
        process.kill()
        process.wait()
    told = re.findall(r'title="layer (\d+), expert (\d+): ([\d,]+) tokens"', page)
    expect([[int(n.replace(",", "")) for n in cell] for cell in told],
           [[i, e, count] for i, layer in enumerate(experts["tokens"]) for e, count in enumerate(layer)])
    expect("Counted in 60 steps." in page, True)


def can_connect(server):
    try:
        server.connect().close()
    except OSError:
        return False
    return True


def main():
    browser = next((path for name in ("chromium", "chromium-browser", "google-chrome")
                    if (path := shutil.which(name))), None)
    if browser is None:
        return SKIPPED
    with Server(sys.argv[1], sys.argv[2], "--shutdown-timeout", "0", token_ms=3) as server:
        server.wait_ready()
        body = {"prompt": ["one two three"] * 6, "max_tokens": 4000, "ignore_eos": True}
        client = threading.Thread(target=server.ask, args=("POST", "/v1/completions", body))
        client.start()
        until(lambda: server.live()["waiting"] == 2, "they do not begin")
        url = f"http://127.0.0.1:{server.port}/"
        done = browse(browser, url, "--dump-dom")
        server.ask("POST", "/drain")
        client.join()
    page = re.sub(r"<(style|script)\b.*?</\1>", "", done.stdout, flags=re.S)
    text = " ".join(re.sub(r"<[^>]+>", " ", page).split())
    for said in ("demo-mixed ok", "2 ranks, 4 sequences of up to 4096 tokens", "4 running",
                 "2 waiting", "12 % KV cache", "0 3.0 MiB 1.0 KiB", "2 FP8: &lt;as declared&gt;", "1-2"):
        if said not in text:
            raise AssertionError(f"{said!r} is not on the page: {text}")
    expect(len(re.findall(r'<td class="h"', page)), 24)
    expect(len(re.findall(r'<td class="c f[01]"', page)), 2)
    expect([line for line in done.stderr.splitlines() if "CONSOLE" in line], [])
    real_experts(browser, *sys.argv[2:])
    return 0


if __name__ == "__main__":
    sys.exit(main())
