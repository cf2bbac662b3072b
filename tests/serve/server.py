"""A server under test, and clients made of the standard library alone."""

import http.client
import json
import signal
import socket
import subprocess
import sys
import time


class Server:
    """fake_server as a process; ends with the block, and its exit code is looked at."""

    def __init__(self, program, folder, *options, load_ms=0, token_ms=1, end_code=0):
        command = [program, str(load_ms), str(token_ms), "serve", folder, "--port", "0", *options]
        self.end_code = end_code
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        line = self.process.stdout.readline()
        if not line.startswith("port "):
            raise AssertionError(f"it did not start: {self.process.communicate()}")
        self.port = int(line.split()[1])

    def __enter__(self):
        return self

    def __exit__(self, kind, *rest):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.errors = self.process.communicate(timeout=20)[1]
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.errors = self.process.communicate()[1]
        if kind is not None or self.process.returncode != self.end_code:
            sys.stderr.write(self.errors)
        if kind is None:
            expect(self.process.returncode, self.end_code)

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def ask(self, method, path, body=None, headers=None):
        """(status, headers, body) of one request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        given = dict(headers or {})
        if body is not None and not isinstance(body, (str, bytes)):
            body = json.dumps(body)
        if body is not None:
            given.setdefault("Content-Type", "application/json")
        connection.request(method, path, body, given)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, answer.headers, data

    def json(self, method, path, body=None, headers=None, status=200):
        got, _, data = self.ask(method, path, body, headers)
        if got != status:
            raise AssertionError(f"{method} {path}: {got}, expected {status}: {data[:300]}")
        return json.loads(data)

    def events(self, path, body, headers=None):
        """The data lines of a stream; its comments are left out."""
        status, fields, data = self.ask("POST", path, {**body, "stream": True}, headers)
        expect(status, 200)
        expect(fields["Content-Type"].split(";")[0], "text/event-stream")
        return [part[6:] for part in data.decode().split("\n\n") if part.startswith("data: ")]

    def wait_ready(self):
        for _ in range(500):
            if self.ask("GET", "/health")[0] == 200:
                return self
            time.sleep(0.01)
        raise AssertionError("it does not become ready")

    def live(self):
        return self.json("GET", "/server_info")["requests"]

    def wait_idle(self):
        until(lambda: set(self.live().values()) == {0}, "requests stay alive")


def until(holds, otherwise, seconds=10):
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise AssertionError(otherwise)
        time.sleep(0.01)


def expect(got, wanted):
    if got != wanted:
        raise AssertionError(f"{got!r}, expected {wanted!r}")


def raw(server, request, wait=True):
    """What comes back for some bytes, until the server closes or says nothing for a second."""
    with server.connect() as client:
        client.sendall(request)
        client.settimeout(1 if wait else 0.2)
        data = b""
        try:
            while piece := client.recv(65536):
                data += piece
        except (TimeoutError, ConnectionResetError):
            pass
        return data


def run(cases, *arguments):
    """Runs every case; a failure names it."""
    failed = 0
    for case in cases:
        begun = time.monotonic()
        try:
            case(*arguments)
            outcome = "ok"
        except Exception as error:  # one case that fails must not hide the others
            outcome = f"FAILED: {type(error).__name__}: {error}"
            failed += 1
        print(f"{case.__name__}: {outcome} ({time.monotonic() - begun:.2f} s)", flush=True)
    return 1 if failed else 0
