#!/usr/bin/env python3
"""HTTPS: certificates that are good, and those that are not.

tls_cases.py FAKE_SERVER FOLDER      exit code 77: no openssl here to make a certificate with
"""

import json
import pathlib
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time

from server import Server, expect

SKIPPED = 77


def certificate(folder, name):
    cert, key = folder / f"{name}.crt", folder / f"{name}.key"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                    "-nodes", "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=localhost",
                    "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    return str(cert), str(key)


def ask(server, context, request):
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as plain:
        with context.wrap_socket(plain, server_hostname="127.0.0.1") as client:
            client.sendall(request)
            data = b""
            while piece := client.recv(65536):
                data += piece
            return data


def main():
    if shutil.which("openssl") is None:
        return SKIPPED
    program, demo = sys.argv[1:3]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        cert, key = certificate(folder, "own")
        other_key = certificate(folder, "other")[1]
        context = ssl.create_default_context(cafile=cert)
        with Server(program, demo, "--ssl-certfile", cert, "--ssl-keyfile", key) as server:
            time.sleep(0.1)
            head = b"Host: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
            body = json.dumps({"prompt": "one two three", "stream": True}).encode()
            answer = ask(server, context, b"POST /v1/completions HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n%b"
                         % (head, len(body), body))
            assert answer.startswith(b"HTTP/1.1 200 OK") and b"data: [DONE]" in answer, answer
            large = json.dumps({"prompt": "a " * 400000}).encode()
            answer = ask(server, context, b"POST /tokenize HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n%b"
                         % (head, len(large), large))
            expect(len(json.loads(answer.split(b"\r\n\r\n", 1)[1])["tokens"]) >= 400000, True)
            # whoever does not speak TLS is let go, and nobody else notices
            with server.connect() as plain:
                plain.sendall(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n")
                try:
                    assert not plain.recv(100).startswith(b"HTTP"), "plain text is answered"
                except ConnectionResetError:
                    pass
            assert ask(server, context, b"GET /live HTTP/1.1\r\n" + head + b"\r\n").startswith(b"HTTP/1.1 200")
        for options, said in (((cert, other_key), "--ssl-keyfile"), ((key, key), "--ssl-certfile"),
                              ((str(folder / "none"), key), "--ssl-certfile")):
            with Server(program, demo, "--ssl-certfile", options[0], "--ssl-keyfile", options[1],
                        end_code=2) as server:
                server.process.wait(10)
            assert said in server.errors, server.errors
        with Server(program, demo, "--ssl-certfile", cert, end_code=2) as server:
            server.process.wait(10)
        assert "go together" in server.errors, server.errors
    return 0


if __name__ == "__main__":
    sys.exit(main())
