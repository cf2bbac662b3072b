"""`tessera chat`: with a server of its own, with a stranger's, at a terminal and without one.

usage: chat_cases.py TESSERA DEMO_FOLDER
"""

import contextlib
import http.server
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time

from server import expect, run, until

TESSERA, DEMO = sys.argv[1:3]
DIM, PLAIN = "\033[2m", "\033[0m"


def chat(*options, text="", code=0):
    done = subprocess.run([TESSERA, "chat", *options], input=text, capture_output=True, text=True,
                          timeout=60)
    expect((done.returncode, done.stderr) if done.returncode != code else code, code)
    return done


def left(folder=DEMO):
    """Processes that serve this folder for a chat."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = open(f"/proc/{pid}/cmdline", "rb").read().split(b"\0")
        except OSError:
            continue
        if b"chat" in words and folder.encode() in words:
            found.append(int(pid))
    return found


class Stranger(http.server.BaseHTTPRequestHandler):
    """Another OpenAI server: what it says is a list of pieces, and how it ends is a word."""

    protocol_version = "HTTP/1.1"
    says, ends, asked, wait = [], "done", [], 0

    def log_message(self, *arguments):
        pass

    def reply(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def piece(self, data):
        data = f"data: {data}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def do_GET(self):
        self.reply(200, {"data": [{"id": "a stranger"}]})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Stranger.asked.append((self.path, self.headers["Authorization"], asked))
        if self.ends == "refuses":
            return self.reply(401, {"error": {"message": "no such key"}})
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with contextlib.suppress(OSError):
            self.speak()

    def speak(self):
        for delta in self.says:
            self.piece(json.dumps({"choices": [{"index": 0, "delta": delta}]}))
            time.sleep(self.wait)
        if self.ends == "error":
            self.piece(json.dumps({"error": {"message": "it broke"}}))
        if self.ends == "silent":
            time.sleep(3)
        if self.ends in ("cut", "silent"):
            self.close_connection = True
            return
        last = {"index": 0, "delta": {}, "finish_reason": "length"}
        self.piece(json.dumps({"choices": [last]}))
        self.piece(json.dumps({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 9}}))
        self.piece("[DONE]")
        self.wfile.write(b"0\r\n\r\n")


@contextlib.contextmanager
def stranger(says, ends="done", wait=0.0):
    Stranger.says, Stranger.ends, Stranger.asked, Stranger.wait = says, ends, [], wait
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stranger) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def one_question():
    done = chat(DEMO, "--prompt", "What is 12 + 30?")
    expect((done.stdout, done.stderr), ("42\n", ""))
    done = chat(DEMO, "--ranks", "2", "--temperature", "0", text="What is 12 + 30?\n\nWhat is 5 * 7?")
    expect((done.stdout, done.stderr, left()), ("42\n35\n", "", []))


def what_is_asked():
    """Every request has all that was said, and what was set."""
    with stranger([{"content": "a"}, {"content": "b"}]) as url:
        lines = ["one", "/set temperature=0.5", "/set stop=[\"x\"]", "/set tone=mild", "/system be",
                 '"""/two', 'three"""', "/retry", "/set tone=", "/clear", "four \\", "five", "/exit", "six"]
        done = chat("--url", url + "/v1/", "--api-key", "K", "--max-tokens", "5", "--system", "is",
                    text="\n".join(lines))
        expect((done.stdout, done.stderr), ("ab\n" * 4, ""))
    one, two, again, four = [asked for _, _, asked in Stranger.asked]
    expect({(path, key) for path, key, _ in Stranger.asked}, {("/v1/chat/completions", "Bearer K")})

    def said(*pairs):
        return [{"role": role, "content": content} for role, content in pairs]

    expect(one["messages"], said(("system", "is"), ("user", "one")))
    expect((one["model"], one["max_tokens"], one["stream"]), ("a stranger", 5, True))
    expect(two["messages"], said(("system", "be"), ("user", "one"), ("assistant", "ab"),
                                 ("user", "/two\nthree")))
    expect((two["temperature"], two["stop"], two["tone"]), (0.5, ["x"], "mild"))
    expect(again, two)
    expect(four["messages"], said(("system", "be"), ("user", "four \nfive")))
    expect("tone" in four, False)


def what_goes_wrong():
    def wrong(code, line, *options, text="", lines=1):
        done = chat(*options, text=text, code=code)
        if line not in done.stderr or done.stderr.count("\n") != lines:
            raise AssertionError(f"{line!r} is not the line: {done.stderr}")
        return done.stdout

    wrong(9, "nobody answers there", "--url", "http://127.0.0.1:1", "--prompt", "a")
    wrong(2, "expected http://", "--url", "here", "--prompt", "a")
    wrong(2, "give one of them", DEMO, "--url", "http://127.0.0.1:1")
    wrong(2, "belong to a folder", "--ranks", "2")
    wrong(3, "give the folder of a checkpoint", DEMO + "/no", "--prompt", "a")
    wrong(4, "does not fit", DEMO, "--memory", "1M", "--prompt", "a", lines=2)
    wrong(2, "model `b`", DEMO, "--model", "b", "--prompt", "a")
    says = [{"content": "a"}]
    with stranger(says, "refuses") as url:
        wrong(2, "no such key", "--url", url, "--prompt", "a")
        expect(wrong(2, "/what: /help", "--url", url, text="/what is it\na\n"), "")
    with stranger(says, "error") as url:
        expect(wrong(9, "it broke", "--url", url, text="a\na\n"), "a\n")
    with stranger(says, "cut") as url:
        expect(wrong(9, "closed the connection", "--url", url, text="a\na\n"), "a\n")
    with stranger(says, "silent") as url:
        expect(wrong(8, "silent", "--url", url, "--client-timeout", "1", "--prompt", "a"), "a\n")


class Terminal:
    """A chat at a terminal of its own."""

    def __init__(self, *options):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ["TERM"] = "xterm"
            os.execv(TESSERA, [TESSERA, "chat", *options])
        self.shown = ""

    def type(self, text):
        os.write(self.fd, text.encode())

    def wait(self, wanted, seconds=20):
        """Reads until a pattern is shown, and forgets what was shown up to there."""
        end = time.monotonic() + seconds
        while (found := re.search(wanted, self.shown, re.S)) is None:
            if time.monotonic() > end or not select.select([self.fd], [], [], 1)[0]:
                if time.monotonic() > end:
                    raise AssertionError(f"{wanted!r} is not in {self.shown!r}")
                continue
            self.shown += os.read(self.fd, 65536).decode(errors="replace")
        self.shown = self.shown[found.end():]
        return found

    def end(self, code):
        with contextlib.suppress(OSError):
            while select.select([self.fd], [], [], 20)[0] and (data := os.read(self.fd, 65536)):
                self.shown += data.decode(errors="replace")
        if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
            time.sleep(1)
            os.kill(self.pid, signal.SIGKILL)  # one that has ended keeps its code
        status = os.waitpid(self.pid, 0)[1]
        os.close(self.fd)
        expect(os.waitstatus_to_exitcode(status), code)


def a_terminal():
    says = [{"reasoning_content": "let me "}, {"reasoning": "see"}] + [
        {"content": piece} for piece in ("\033]0;evil\a", "w\u009bo", "rd\n")]
    with stranger(says) as url:
        term = Terminal("--url", url)
        term.wait("a stranger at http")
        term.wait("> ")
        term.type("one\r")
        term.wait(re.escape(f"{DIM}let me {PLAIN}") + ".*see")
        shown = term.wait(re.escape("]0;evilword\r\n") + r".*\[7 \+ 9 tokens, [0-9.]+ tokens/s")
        expect("evil\a" in shown.group() or "\u009b" in shown.group(), False)
        term.wait("max_tokens")
        term.wait("> ")
        term.type("two \\\r")
        term.wait(r"\. ")
        term.type("three\r")
        term.wait("9 tokens")
        term.wait("> ")
        term.type("four\rfive\r")  # pasted
        term.wait("9 tokens")
        term.wait("> ")
        term.type("/nothing\r")
        term.wait("/help lists")
        term.wait("> ")
        term.type("\x04")
        term.end(0)
    asked = [a["messages"][-1]["content"] for _, _, a in Stranger.asked]
    expect(asked, ["one", "two \nthree", "four\nfive"])


def interrupts():
    """Ctrl-C stops an answer, and a line, and neither ends the chat."""
    with stranger([{"content": f"{i} "} for i in range(1000)], wait=0.02) as url:
        term = Terminal("--url", url)
        term.wait("> ")
        term.type("go\r")
        term.wait("0 1 2 ")
        term.type("\x03")
        term.wait("> ")
        term.type("half a line")
        term.wait("half a line")
        term.type("\x03")
        term.wait("Ctrl-D ends")
        term.wait("> ")
        for _ in range(50):  # as soon as there is a prompt
            term.type("\x03")
            term.wait("Ctrl-D ends")
            term.wait("> ")
        Stranger.says = [{"content": "whole"}]
        term.type("again\r")
        term.wait("whole")
        term.wait("> ")
        term.type("/exit\r")
        term.end(0)
    first, last = (a["messages"] for _, _, a in Stranger.asked)
    expect([m["content"][:4] for m in last], ["go", "0 1 ", "agai"])


def arrows():
    """With libedit: what was typed before comes back, and can be changed."""
    with stranger([{"content": "yes"}]) as url:
        term = Terminal("--url", url)
        term.wait("> ")
        term.type("w\u00f6rd\r")
        term.wait("9 tokens")
        term.wait("> ")
        term.type("\033[A\033[D\033[Dx\r")
        term.wait("9 tokens")
        term.wait("> ")
        os.kill(term.pid, signal.SIGUSR1)  # which interrupts nothing
        os.write(term.fd, b"caf\xe9\r")  # no UTF-8, whose end is a key all the same
        term.wait("9 tokens")
        term.wait("> ")
        term.type("\x04")
        term.end(0)
    expect([a["messages"][-1]["content"] for _, _, a in Stranger.asked],
           ["w\u00f6rd", "w\u00f6xrd", "caf"])


def nothing_is_left():
    """A chat that is killed takes its server along; one that is told to end as well."""
    for number, code in ((signal.SIGKILL, -9), (signal.SIGTERM, 143)):
        process = subprocess.Popen([TESSERA, "chat", DEMO, "--ranks", "2"], stdin=subprocess.PIPE,
                                   stderr=subprocess.PIPE)
        until(lambda: len(left()) >= 5, "it does not start")
        process.send_signal(number)
        expect(process.wait(timeout=20), code)
        until(lambda: left() == [], "its server is left")
        process.communicate()


def main():
    cases = [one_question, what_is_asked, what_goes_wrong, a_terminal, interrupts, nothing_is_left]
    if len(sys.argv) > 3 and sys.argv[3] == "libedit":
        cases.append(arrows)
    return run(cases)


if __name__ == "__main__":
    sys.exit(main())
