#!/usr/bin/env python3
"""HTTP itself, in front of an engine that says prompts back.

http_cases.py FAKE_SERVER FOLDER
"""

import json
import socket
import sys
import time

from server import Server, expect, raw, run, until

CHAT = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
HEAD = b"Host: x\r\nContent-Type: application/json\r\n"


def status_of(answer):
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


def error_of(data):
    error = json.loads(data)["error"]
    expect(set(error), {"message", "type", "param", "code"})
    return error


def broken_requests_are_refused(program, folder):
    cases = [
        (b"GET /health\r\n\r\n", 400),
        (b"GET  /health HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /health HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        (b"GET /health HTTP/1.1\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost : x\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: x\r\nA: \x01\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\nHost: x\r\n\r\n", 400),
        (b"GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /%00 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"G\x00T / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET nowhere HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 200 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\na: " + b"b" * 70000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\nExpect: bread\r\n\r\n", 417),
        (b"POST /tokenize HTTP/1.1\r\n" + HEAD + b"Content-Length: -1\r\n\r\n", 400),
        (b"POST /tokenize HTTP/1.1\r\n" + HEAD + b"Content-Length: 3, 3\r\n\r\n", 400),
        (b"POST /tokenize HTTP/1.1\r\n" + HEAD + b"Content-Length: 9" + b"9" * 30 + b"\r\n\r\n", 400),
        (b"POST /tokenize HTTP/1.1\r\n" + HEAD + b"Content-Length: 99999999999\r\n\r\n", 413),
        (b"POST /tokenize HTTP/1.1\r\n" + HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n", 400),
        (b"POST /tokenize HTTP/1.1\r\n" + HEAD
         + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST /tokenize HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: gzip\r\n\r\n", 501),
        (b"POST /tokenize HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
        (b"POST /tokenize HTTP/1.1\r\n" + HEAD
         + b"Transfer-Encoding: chunked\r\n\r\nfffffff\r\n", 413),
        (b"POST /tokenize HTTP/1.1\r\n" + HEAD
         + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}x\r\n", 400),
        (b"DELETE /health HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"POST /health HTTP/1.1\r\n" + HEAD + b"Content-Length: 0\r\n\r\n", 405),
        (b"GET /v1/completions HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET /v1/models/nothing HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\n"
         b"Content-Length: 2\r\n\r\n{}", 415),
        (b"POST /drain HTTP/1.1\r\nHost: x\r\nOrigin: http://y\r\nContent-Length: 0\r\n\r\n", 403),
    ]
    with Server(program, folder) as server:
        server.wait_ready()
        for request, status in cases:
            answer = raw(server, request, wait=False)
            if status_of(answer) != status:
                raise AssertionError(f"{request[:60]}: {answer[:80]}, expected {status}")
            error_of(answer.split(b"\r\n\r\n", 1)[1])
        expect(server.ask("GET", "/health")[0], 200)


def good_requests_are_understood_however_they_are_cut(program, folder):
    body = b'{"prompt": "one two"}'
    plain = (b"POST /tokenize HTTP/1.1\r\n" + HEAD + b"Content-Length: %d\r\n\r\n" % len(body)) + body
    chunks = b"POST /tokenize HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    for at in range(0, len(body), 5):
        piece = body[at : at + 5]
        chunks += b"%x;a=b\r\n%s\r\n" % (len(piece), piece)
    chunks += b"0\r\nTrailer: x\r\n\r\n"
    with Server(program, folder) as server:
        server.wait_ready()
        for request in (plain, chunks, b"\r\n" + plain):
            with server.connect() as client:
                for at in range(0, len(request), 7):
                    client.sendall(request[at : at + 7])
                    time.sleep(0.0005)
                expect(status_of(client.recv(65536)), 200)
        # several requests at once, answered in their order
        answers = raw(server, plain + chunks + b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n"
                      + b"GET /live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        expect(answers.count(b"HTTP/1.1 200 OK"), 4)
        expect(answers.count(b'"count":'), 2)
        assert answers.index(b'"version"') < answers.index(b'{"status":"ok"}')
        # the same without a connection that is kept
        old = raw(server, b"GET /version HTTP/1.0\r\n\r\n")
        assert status_of(old) == 200 and b"Connection: close" in old
        expect(server.ask("HEAD", "/health")[2], b"")
        expect(server.ask("GET", "/health?x=1")[0], 200)
        expect(server.ask("GET", "/v1/models/demo%2Dmixed")[0], 200)
        expect(status_of(raw(server, b"GET http://x/health HTTP/1.1\r\nHost: x\r\n\r\n", False)), 200)


def a_body_is_asked_for_before_it_is_sent(program, folder):
    with Server(program, folder, "--api-key", "k") as server:
        head = b"POST /tokenize HTTP/1.1\r\n" + HEAD + b"Content-Length: 15\r\nExpect: 100-continue\r\n"
        with server.connect() as client:
            client.sendall(head + b"Authorization: Bearer k\r\n\r\n")
            expect(client.recv(100), b"HTTP/1.1 100 Continue\r\n\r\n")
            client.sendall(b'{"prompt": "a"}')
            expect(status_of(client.recv(65536)), 200)
        expect(status_of(raw(server, head + b"\r\n", wait=False)), 401)


def keys_are_asked_for(program, folder):
    with Server(program, folder, "--api-key", "one", "--api-key", "two") as server:
        for path in ("/live", "/health", "/metrics"):
            assert server.ask("GET", path)[0] in (200, 503)
        for path in ("/v1/models", "/version", "/", "/server_info", "/nothing"):
            status, fields, data = server.ask("GET", path)
            expect(status, 401)
            assert "Bearer" in str(fields.get_all("WWW-Authenticate"))
            expect(error_of(data)["code"], "invalid_api_key")
            expect(error_of(data)["type"], "authentication_error")
        good = [{"Authorization": "Bearer one"}, {"Authorization": "bearer two"},
                {"x-api-key": "two"}, {"Authorization": "Basic OnR3bw=="}]
        bad = [{"Authorization": "Bearer three"}, {"Authorization": "Bearer "}, {"x-api-key": ""},
               {"Authorization": "Bearer one "[:-1] + "e"}, {"Authorization": "Basic dHdv"},
               {"Authorization": "Bearer " + "x" * 5000}, {"Authorization": "one"}]
        for headers in good:
            expect(server.ask("GET", "/version", headers=headers)[0], 200)
        for headers in bad:
            expect(server.ask("GET", "/version", headers=headers)[0], 401)


def requests_have_ids(program, folder):
    with Server(program, folder) as server:
        expect(server.ask("GET", "/live", headers={"x-request-id": "my-id.7"})[1]["x-request-id"],
               "my-id.7")
        own = [server.ask("GET", "/live")[1]["x-request-id"] for _ in range(3)]
        expect(len(set(own)), 3)
        for bad in ("a b", "x" * 200):
            got = server.ask("GET", "/live", headers={"x-request-id": bad})[1]["x-request-id"]
            assert got.startswith("req_"), got


def browsers_of_other_origins_are_kept_out(program, folder):
    with Server(program, folder) as server:
        status, fields, _ = server.ask("OPTIONS", "/v1/completions", headers={"Origin": "http://a"})
        expect((status, fields["Access-Control-Allow-Origin"]), (204, None))
        host = f"http://127.0.0.1:{server.port}"
        expect(server.ask("POST", "/tokenize", {"prompt": "a"}, {"Origin": host})[0], 200)
    with Server(program, folder, "--cors-origin", "http://a") as server:
        status, fields, _ = server.ask("POST", "/tokenize", {"prompt": "a"}, {"Origin": "http://a"})
        expect((status, fields["Access-Control-Allow-Origin"]), (200, "http://a"))
        expect(server.ask("POST", "/tokenize", {"prompt": "a"}, {"Origin": "http://b"})[0], 403)


def slow_clients_are_let_go(program, folder):
    with Server(program, folder, "--client-timeout", "1") as server:
        silent, slow_head, slow_body = server.connect(), server.connect(), server.connect()
        slow_head.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n")
        slow_body.sendall(b"POST /tokenize HTTP/1.1\r\n" + HEAD + b"Content-Length: 100\r\n\r\n")
        begun = time.monotonic()
        ended = {}
        for client in (silent, slow_head, slow_body):
            client.setblocking(False)
        while len(ended) < 3 and time.monotonic() < begun + 5:
            for client in (slow_head, slow_body):
                try:
                    client.sendall(b"a")  # a byte now and then is not enough
                except OSError:
                    pass
            for client in (silent, slow_head, slow_body):
                try:
                    data = client.recv(4096) if client not in ended else b"-"
                    if client not in ended:
                        ended[client] = (data, time.monotonic() - begun)
                except BlockingIOError:
                    pass
            time.sleep(0.1)
        expect(ended[silent][0], b"")
        expect(status_of(ended[slow_head][0]), 408)
        expect(status_of(ended[slow_body][0]), 408)
        assert all(0.9 < seconds < 3 for _, seconds in ended.values()), ended
        for client in (silent, slow_head, slow_body):
            client.close()


def a_client_that_leaves_takes_its_request_along(program, folder):
    with Server(program, folder, token_ms=5) as server:
        server.wait_ready()
        for extra in ({"seed": 904}, {}, {"stream": True}, {"stream": True, "seed": 904, "n": 3}):
            body = json.dumps({**CHAT, "max_tokens": 4000, "ignore_eos": True, **extra}).encode()
            request = b"POST /v1/chat/completions HTTP/1.1\r\n" + HEAD + (
                b"Content-Length: %d\r\n\r\n" % len(body)) + body
            client = server.connect()
            client.sendall(request)
            until(lambda: server.live()["running"] > 0, "it does not begin")
            begun = time.monotonic()
            client.close()
            server.wait_idle()
            assert time.monotonic() - begun < 0.5
        metrics = server.ask("GET", "/metrics")[2].decode()
        assert 'finished_reason="abort"} 6' in metrics
        assert 'handler="/v1/chat/completions",method="POST",status="499"} 4' in metrics


def a_client_that_does_not_read_is_cut_and_holds_up_nobody(program, folder):
    with Server(program, folder) as server:
        server.wait_ready()
        body = json.dumps({"prompt": ["a b c d"] * 32, "max_tokens": 4000, "ignore_eos": True,
                           "seed": 905, "stream": True}).encode()
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", server.port))
        client.sendall(b"POST /v1/completions HTTP/1.1\r\n" + HEAD
                       + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        until(lambda: server.live()["live"] > 0, "it does not begin")
        begun = time.monotonic()
        expect(server.json("POST", "/v1/completions",
                           {"prompt": "x", "max_tokens": 1})["choices"][0]["finish_reason"], "length")
        server.wait_idle()
        assert time.monotonic() - begun < 10
        client.close()
    assert "reads too slowly" in server.errors, server.errors


def main():
    return run([
        broken_requests_are_refused,
        good_requests_are_understood_however_they_are_cut,
        a_body_is_asked_for_before_it_is_sent,
        keys_are_asked_for,
        requests_have_ids,
        browsers_of_other_origins_are_kept_out,
        slow_clients_are_let_go,
        a_client_that_leaves_takes_its_request_along,
        a_client_that_does_not_read_is_cut_and_holds_up_nobody,
    ], *sys.argv[1:3])


if __name__ == "__main__":
    sys.exit(main())
