#!/usr/bin/env python3
"""Endpoints, parameters, streams and errors, in front of an engine that says prompts back.

api_cases.py FAKE_SERVER FOLDER
"""

import json
import os
import re
import sys
import tempfile
import threading
import time

from server import Server, expect, raw, run, until

TEXT = "What is 12 + 30?"
REFUSED, FAILED, LOST, SLOW = 901, 902, 903, 904
RIVAL = 300  # more probable than every second token of a prompt


def chat(text=TEXT, **more):
    return {"messages": [{"role": "user", "content": text}], **more}


def ready(program, folder, *options, **more):
    return Server(program, folder, *options, **more).wait_ready()


def error_of(server, path, body, status, code, param=None):
    got, fields, data = server.ask("POST", path, body)
    error = json.loads(data)["error"]
    if (got, error["code"], error["param"]) != (status, code, param):
        raise AssertionError(f"{str(body)[:80]}: {got} {error}")
    return error, fields


def deltas(events, index=0):
    """Text and end of one choice of a stream."""
    expect(events[-1], "[DONE]")
    chunks = [json.loads(e) for e in events[:-1]]
    expect({c["id"] for c in chunks}, {chunks[0]["id"]})
    choices = [c for chunk in chunks for c in chunk["choices"] if c["index"] == index]
    text = "".join(c["text"] if "text" in c else c["delta"].get("content", "") for c in choices)
    assert all(c["finish_reason"] is None for c in choices[:-1])
    return text, choices


def completions_say_what_they_are(program, folder):
    with ready(program, folder) as server:
        whole = server.json("POST", "/v1/completions", {"model": "demo-mixed", "prompt": TEXT})
        expect(whole["object"], "text_completion")
        assert re.fullmatch(r"cmpl-\w+", whole["id"]) and abs(whole["created"] - time.time()) < 5
        expect(whole["model"], "demo-mixed")
        expect(whole["choices"], [{"index": 0, "text": TEXT, "logprobs": None,
                                   "finish_reason": "stop", "stop_reason": None}])
        expect(whole["usage"], {"prompt_tokens": 10, "completion_tokens": 11, "total_tokens": 21,
                                "prompt_tokens_details": {"cached_tokens": 0}})
        # 16 is OpenAI's default
        endless = server.json("POST", "/v1/completions", {"prompt": TEXT, "ignore_eos": True})
        expect(endless["usage"]["completion_tokens"], 16)
        expect(endless["choices"][0]["finish_reason"], "length")
        ids = server.json("POST", "/tokenize", {"prompt": TEXT})["tokens"]
        for prompt, texts in (([TEXT, "Hi"], [TEXT, "Hi"]), (ids, [TEXT]), ([ids, ids[:1]], [TEXT, "What"])):
            answer = server.json("POST", "/v1/completions", {"prompt": prompt, "n": 2})
            expect([c["text"] for c in answer["choices"]], [t for t in texts for _ in range(2)])
            expect([c["index"] for c in answer["choices"]], list(range(2 * len(texts))))


def streams_come_in_order(program, folder):
    with ready(program, folder) as server:
        text, choices = deltas(server.events("/v1/completions", {"prompt": TEXT}))
        expect(text, TEXT)
        expect(choices[-1]["finish_reason"], "stop")
        events = server.events("/v1/chat/completions", chat(n=3))
        chunks = [json.loads(e) for e in events[:-1]]
        # who speaks comes first, of each choice in turn
        expect([c["choices"][0]["index"] for c in chunks[:3]], [0, 1, 2])
        assert all(c["choices"][0]["delta"] == {"role": "assistant", "content": ""} for c in chunks[:3])
        assert all(c["object"] == "chat.completion.chunk" and "usage" not in c for c in chunks)
        whole = server.json("POST", "/v1/chat/completions", chat())["choices"][0]["message"]
        expect(whole["role"], "assistant")
        for index in range(3):
            text, choices = deltas(events, index)
            expect(text, whole["content"])
            expect((choices[-1]["delta"], choices[-1]["finish_reason"]), ({}, "stop"))


def usage_is_told_as_asked(program, folder):
    with ready(program, folder) as server:
        for options in ({}, {"include_usage": True},
                        {"include_usage": True, "continuous_usage_stats": True}):
            body = {"prompt": TEXT, "stream_options": options}
            chunks = [json.loads(e) for e in server.events("/v1/completions", body)[:-1]]
            last = chunks.pop() if options else None
            assert all(c["choices"] for c in chunks)
            if not options:
                assert all("usage" not in c for c in chunks)
                continue
            expect((last["choices"], last["usage"]["total_tokens"]), ([], 21))
            counts = [c["usage"] and c["usage"]["completion_tokens"] for c in chunks]
            expect(counts, [None] * len(counts) if len(options) == 1 else sorted(counts))
            assert len(options) == 1 or counts[0] == 1


def answers_stop_where_they_should(program, folder):
    with ready(program, folder) as server:
        ids = server.json("POST", "/tokenize", {"prompt": TEXT})["tokens"]
        cases = [
            ({"stop": "12"}, "What is ", "stop", "12"),
            ({"stop": ["30", " +"]}, "What is 12", "stop", " +"),
            ({"stop": "12", "include_stop_str_in_output": True}, "What is 12", "stop", "12"),
            ({"stop_token_ids": [ids[3]]}, "What is ", "stop", ids[3]),
            ({"max_tokens": 2}, "What is", "length", None),
            ({"stop": None, "max_tokens": None, "logprobs": None, "n": None, "seed": None,
              "repetition_penalty": 1.0, "user": "me", "not_known": 1}, TEXT, "stop", None),
        ]
        for more, text, reason, stop in cases:
            body = {"prompt": TEXT, **more}
            choice = server.json("POST", "/v1/completions", body)["choices"][0]
            expect((choice["text"], choice["finish_reason"], choice["stop_reason"]),
                   (text, reason, stop))
            streamed, choices = deltas(server.events("/v1/completions", body))
            expect((streamed, choices[-1]["finish_reason"], choices[-1]["stop_reason"]),
                   (text, reason, stop))
        server.wait_idle()
    assert server.errors.count("not_known") == 1, server.errors


def wrong_bodies_are_refused_by_name(program, folder):
    deep = "[" * 10000 + "]" * 10000
    with ready(program, folder) as server:
        for path, good in (("/v1/completions", {"prompt": TEXT}), ("/v1/chat/completions", chat())):
            for text in ("", "{", "[]", "nothing", '{"a": 1, "a": 2}', deep, '{"prompt": %s}' % deep,
                         b'{"prompt": "\xff"}', b'{"prompt": "\xed\xa0\x80"}', '{"prompt": "\\ud800"}'):
                error_of(server, path, text, 400, "invalid_json")
            for name, value in (("temperature", 3), ("temperature", "hot"), ("top_p", 0),
                                ("max_tokens", -1), ("n", 0), ("n", 129), ("n", 1.5), ("n", "2"),
                                ("stream", 1), ("stream_options", []), ("include_usage", None),
                                ("stop", [""]), ("stop", ["a"] * 10000), ("stop", 5),
                                ("seed", "x"), ("ignore_eos", 1), ("model", 5),
                                ("stop_token_ids", [-1]), ("temperature", 1e400)):
                if name == "include_usage":
                    body, name = {**good, "stream_options": {"include_usage": 3}}, "include_usage"
                else:
                    body = {**good, name: value}
                error_of(server, path, json.dumps(body).replace("Infinity", "1e400"), 400,
                         "invalid_value", name)
            error_of(server, path, {**good, "model": "other"}, 404, "model_not_found", "model")
            error_of(server, path, {**good, "max_tokens": 9999}, 400, "context_length_exceeded",
                     "max_tokens")
            error_of(server, path, {**good, "prompt_logprobs": 1, "stream": True}, 400, "invalid_value",
                     "prompt_logprobs")
        error_of(server, path, {**good, "best_of": 3}, 400, "unsupported_parameter", "best_of")
        many = {"prompt": TEXT, "best_of": 3}
        error_of(server, "/v1/completions", {**many, "n": 4}, 400, "invalid_value", "best_of")
        error_of(server, "/v1/completions", {**many, "stream": True}, 400, "invalid_value", "best_of")
        error, _ = error_of(server, "/v1/completions", {"prompt": [[5] * 4096]}, 400,
                            "context_length_exceeded", "prompt")
        assert "maximum context length is 4096 tokens" in error["message"]
        for prompt in (None, "", [], [""], [[]], 5, [1.5], [-1], [10**9], {"a": 1}, [[5], "a", 7]):
            status, _, data = server.ask("POST", "/v1/completions", {"prompt": prompt})
            expect((status, json.loads(data)["error"]["type"]), (400, "invalid_request_error"))
        error_of(server, "/v1/completions", {"prompt": ["a"] * 100, "n": 100}, 400, "invalid_value", "n")
        for messages in ([], "hi", [{}], [{"role": 5}], [{"role": "user", "content": 5}]):
            error_of(server, "/v1/chat/completions", {"messages": messages}, 400, "invalid_value",
                     "messages")
        # a body of the most bytes, and of one more
        room = (64 << 20) - len('{"prompt": ""}')
        error_of(server, "/v1/completions", '{"prompt": "%s"}' % ("a" * room), 400,
                 "context_length_exceeded", "prompt")
        with server.connect() as client:
            client.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                           b"Content-Length: %d\r\n\r\n" % ((64 << 20) + 1))
            assert client.recv(4096).startswith(b"HTTP/1.1 413 ")
        expect(server.json("POST", "/v1/completions", {"prompt": "Hi"})["choices"][0]["text"], "Hi")
        server.wait_idle()


def unknown_fields_can_be_refused(program, folder):
    with ready(program, folder, "--strict-api") as server:
        error_of(server, "/v1/completions", {"prompt": "a", "tempo": 1}, 400,
                 "unsupported_parameter", "tempo")
        server.json("POST", "/v1/completions", {"prompt": "a", "user": "me"})


def what_the_engine_refuses_is_an_error(program, folder):
    with ready(program, folder) as server:
        for stream in (False, True):  # the stream has no head yet
            body = {"prompt": TEXT, "seed": REFUSED, "stream": stream}
            error_of(server, "/v1/completions", body, 400, "invalid_value")
        error, fields = error_of(server, "/v1/completions", {"prompt": TEXT, "seed": FAILED}, 500,
                                 "not_finite")
        expect((error["type"], fields["x-should-retry"]), ("server_error", "false"))
        events = server.events("/v1/chat/completions", chat(seed=FAILED))
        expect((json.loads(events[-2])["error"]["code"], events[-1]), ("not_finite", "[DONE]"))
        server.wait_idle()


def a_lost_engine_is_a_pause(program, folder):
    with ready(program, folder) as server:
        begun = time.monotonic()
        text, _ = deltas(server.events("/v1/completions", {"prompt": TEXT, "seed": LOST}))
        expect(text, TEXT)
        assert time.monotonic() - begun > 0.25
        expect(server.json("GET", "/server_info")["engine_restarts"], 1)
        thread = threading.Thread(target=server.ask, args=(
            "POST", "/v1/completions", {"prompt": TEXT, "seed": LOST}))
        thread.start()
        until(lambda: server.ask("GET", "/health")[0] == 503, "nobody notices")
        _, fields = error_of(server, "/v1/completions", {"prompt": "a"}, 503, "model_loading")
        assert int(fields["Retry-After"]) > 0
        expect(server.ask("GET", "/live")[0], 200)
        thread.join()


def silence_is_bridged_by_comments(program, folder):
    with ready(program, folder, "--sse-ping-interval", "1") as server:
        data = server.ask("POST", "/v1/completions",
                          {"prompt": "Hi", "seed": SLOW, "stream": True})[2]
        assert data.startswith(b": ping\n\n"), data[:80]
        assert data.endswith(b"data: [DONE]\n\n")


def the_queue_has_an_end(program, folder):
    long = {"prompt": TEXT, "max_tokens": 250, "ignore_eos": True}
    with ready(program, folder, "--max-queue", "2", token_ms=2) as server:
        clients = [threading.Thread(target=server.ask, args=("POST", "/v1/completions", long))
                   for _ in range(6)]
        for client in clients:
            client.start()
        until(lambda: server.live()["live"] == 6, "they do not begin")
        error, fields = error_of(server, "/v1/completions", {"prompt": "a"}, 429, "queue_full")
        expect(error["type"], "rate_limit_error")
        assert int(fields["Retry-After"]) >= 1
        for client in clients:
            client.join()
        server.json("POST", "/v1/completions", {"prompt": "a"})


def loading_is_told(program, folder):
    with Server(program, folder, load_ms=400) as server:
        until(lambda: server.json("GET", "/health", status=503)["progress"], "there is no progress")
        health = server.json("GET", "/health", status=503)
        expect((health["status"], health["error"]["message"], health["world_size"]),
               ("loading", "Loading model", None))
        expect(health["progress"]["total"], 1 << 20)
        error_of(server, "/v1/completions", {"prompt": "a"}, 503, "model_loading")
        expect(server.ask("GET", "/live")[0], 200)
        server.json("POST", "/tokenize", {"prompt": "a"})
        server.wait_ready()
        expect(server.json("GET", "/health"), {"status": "ok", "progress": None, "world_size": 2})


def draining_finishes_what_runs(program, folder):
    long = {"prompt": TEXT, "max_tokens": 300, "ignore_eos": True}
    got = []
    with ready(program, folder, token_ms=2) as server:
        client = threading.Thread(
            target=lambda: got.append(server.json("POST", "/v1/completions", long)))
        client.start()
        until(lambda: server.live()["live"] == 1, "it does not begin")
        expect(server.ask("POST", "/drain")[0], 202)
        expect(server.json("GET", "/health", status=503)["status"], "draining")
        error_of(server, "/v1/completions", {"prompt": "a"}, 503, "draining")
        client.join()
        expect(got[0]["usage"]["completion_tokens"], 300)
        server.process.wait(10)


def draining_ends_at_its_deadline(program, folder):
    long = chat(max_tokens=3500, ignore_eos=True)
    got = []
    with ready(program, folder, "--shutdown-timeout", "1", token_ms=10) as server:
        client = threading.Thread(
            target=lambda: got.append(server.events("/v1/chat/completions", long)))
        client.start()
        until(lambda: server.live()["live"] == 1, "it does not begin")
        server.ask("POST", "/drain")
        client.join()
        expect(json.loads(got[0][-2])["error"]["code"], "draining")
        expect(got[0][-1], "[DONE]")
        server.process.wait(10)


def models_have_their_names(program, folder):
    with ready(program, folder) as server:
        card = server.json("GET", "/v1/models")["data"][0]
        expect((card["id"], card["root"], card["max_model_len"]), ("demo-mixed", folder, 4096))
        expect(server.json("GET", "/v1/models/demo-mixed"), card)
    with ready(program, folder, "--served-model-name", "org/a", "--served-model-name", "b") as server:
        expect([m["id"] for m in server.json("GET", "/v1/models")["data"]], ["org/a", "b"])
        for path in ("org/a", "org%2Fa", "b"):
            server.json("GET", "/v1/models/" + path)
        server.json("GET", "/v1/models/demo-mixed", status=404)
        for name in ("org/a", "b"):
            answer = server.json("POST", "/v1/completions", {"prompt": "a", "model": name})
            expect(answer["model"], "org/a")


def harnesses_score_and_tokenize(program, folder):
    """What lm-eval asks of a server: its tokenizer, then how probable texts are, batch by batch."""
    with ready(program, folder) as server:
        ids = [server.json("POST", "/tokenize", {"prompt": t, "add_special_tokens": False})["tokens"]
               for t in (TEXT, "one two three")]
        body = {"model": "demo-mixed", "prompt": ids, "temperature": 0, "max_tokens": 1, "logprobs": 1,
                "echo": True, "seed": 1234}
        for choice, tokens in zip(server.json("POST", "/v1/completions", body)["choices"], ids):
            told = choice["logprobs"]
            expect({len(v) for v in told.values()}, {len(tokens) + 1})
            expect((told["token_logprobs"][0], told["top_logprobs"][0]), (None, None))
            assert "".join(told["tokens"]) == choice["text"]
            for at in range(1, len(tokens)):
                lp, top = told["token_logprobs"][at], told["top_logprobs"][at]
                expect(top[told["tokens"][at]], lp)
                expect((lp, lp == max(top.values())), (-0.25, True) if at % 2 == 0 else (-0.5, False))
        # the prompt alone
        body.update(prompt=ids[0], max_tokens=0)
        told = server.json("POST", "/v1/completions", body)["choices"][0]["logprobs"]
        expect(len(told["tokens"]), len(ids[0]))
        # pieces of a stream add up to the whole
        body.update(max_tokens=4, logprobs=3)
        whole = server.json("POST", "/v1/completions", body)["choices"][0]
        events = server.events("/v1/completions", body)
        text, choices = deltas(events)
        expect(text, whole["text"])
        for name, values in whole["logprobs"].items():
            expect([v for c in choices if c["logprobs"] for v in c["logprobs"][name]], values)
        body = chat(logprobs=True, top_logprobs=2, max_tokens=3)
        told = server.json("POST", "/v1/chat/completions", body)["choices"][0]["logprobs"]["content"]
        expect((len(told), [t["logprob"] for t in told[0]["top_logprobs"]]), (3, [-0.25, -3.0]))
        expect(bytes(told[0]["bytes"]).decode(), told[0]["token"])


def prompts_are_told_of(program, folder):
    """vLLM's prompt_logprobs, and beside them an echo with another number of others."""
    with ready(program, folder) as server:
        ids = server.json("POST", "/tokenize", {"prompt": TEXT, "add_special_tokens": False})["tokens"]
        body = {"prompt": [ids, ids], "max_tokens": 2, "prompt_logprobs": 1, "echo": True, "logprobs": 3}
        first, second = server.json("POST", "/v1/completions", body)["choices"]
        told = first["prompt_logprobs"]
        expect((told, first["logprobs"]), (second["prompt_logprobs"], second["logprobs"]))
        expect((len(told), told[0]), (len(ids), None))
        expect({k: v["rank"] for k, v in told[1].items()}, {str(ids[1]): None, str(RIVAL): 1})
        expect([told[1][str(ids[1])]["logprob"], told[2][str(ids[2])]["logprob"]], [-0.5, -0.25])
        expect({k: v["rank"] for k, v in told[2].items()}, {str(ids[2]): 1})
        said = [top[str(i)]["decoded_token"] for top, i in zip(told[1:], ids[1:])]
        expect(first["logprobs"]["tokens"][0] + "".join(said), TEXT)
        expect([len(top) for top in first["logprobs"]["top_logprobs"][1:]], [3] * (len(ids) - 1) + [3] * 2)
        answer = server.json("POST", "/v1/chat/completions", chat(max_tokens=1, prompt_logprobs=0))
        expect(len(answer["prompt_logprobs"]), answer["usage"]["prompt_tokens"])
        assert all(len(told) == 1 for told in answer["prompt_logprobs"][1:])
        expect("prompt_logprobs" in server.json("POST", "/v1/completions", {"prompt": "a"}), False)


def those_who_live_are_listed(program, folder):
    long = {"prompt": [TEXT, TEXT], "max_tokens": 300, "ignore_eos": True, "n": 3}
    with ready(program, folder, "--api-key", "K", token_ms=2) as server:
        key = {"Authorization": "Bearer K"}
        expect(server.json("GET", "/requests", headers=key), {"requests": []})
        expect(server.ask("GET", "/requests")[0], 401)
        client = threading.Thread(target=server.ask, args=(
            "POST", "/v1/completions", long, {**key, "x-request-id": "mine"}))
        client.start()
        until(lambda: [c["state"] for r in server.json("GET", "/requests", headers=key)["requests"]
                       for c in r["choices"]] == ["running"] * 4 + ["waiting"] * 2, "they do not begin")
        [one] = server.json("GET", "/requests", headers=key)["requests"]
        expect((one["request_id"], one["prompts"], one["max_tokens"], one["stream"]), ("mine", 2, 300, False))
        assert one["choices"][0]["output_tokens"] > 0 and one["choices"][5]["first_token_s"] is None
        client.join()


def a_token_shows_health(program, folder):
    with Server(program, folder, load_ms=200) as server:
        server.json("GET", "/health_generate", status=503)
        server.wait_ready()
        expect(server.json("GET", "/health_generate"), {"status": "ok"})
        server.wait_idle()


def text_becomes_ids_and_back(program, folder):
    with ready(program, folder) as server:
        got = server.json("POST", "/tokenize", {"prompt": TEXT, "return_token_strs": True})
        expect((got["count"], len(got["tokens"]), got["max_model_len"]), (10, 10, 4096))
        expect("".join(got["token_strs"]), TEXT)
        expect(server.json("POST", "/detokenize", {"tokens": got["tokens"]}), {"prompt": TEXT})
        expect(server.json("POST", "/tokenize", {"prompt": ""})["tokens"], [])
        prompt = server.json("POST", "/apply-template", chat())["prompt"]
        assert TEXT in prompt and prompt.startswith("<|im_start|>")
        same = server.json("POST", "/tokenize", {"prompt": prompt, "add_special_tokens": False})
        expect(server.json("POST", "/tokenize", chat())["tokens"], same["tokens"])
        bare = server.json("POST", "/apply-template", chat(add_generation_prompt=False))["prompt"]
        assert prompt.startswith(bare) and bare != prompt
        info = server.json("GET", "/tokenizer_info")
        expect((info["eos_token"], "chat_template" in info), ("<|im_end|>", True))
        for path, body in (("/tokenize", {}), ("/tokenize", {"prompt": 5}), ("/detokenize", {}),
                           ("/detokenize", {"tokens": ["a"]}), ("/detokenize", {"tokens": [10**6]}),
                           ("/tokenize", {"messages": "x"}), ("/apply-template", {}),
                           ("/tokenize", {"prompt": "a", "add_special_tokens": 1})):
            status = server.ask("POST", path, body)[0]
            if status != 400:
                raise AssertionError(f"{path} {body}: {status}")


def numbers_are_told(program, folder):
    with ready(program, folder) as server:
        server.json("POST", "/v1/completions", {"prompt": [TEXT, TEXT], "n": 2})
        until(lambda: server.json("GET", "/experts")["experts"] == 8, "there are no experts")
        experts = server.json("GET", "/experts")
        expect((experts["layers"], len(experts["tokens"]), sum(map(sum, experts["tokens"]))), (3, 3, 44))
        info = server.json("GET", "/server_info")
        expect((info["ranks"], len(info["engine"]["layers"]), info["tokens"]["output"]), (2, 3, 44))
        assert re.fullmatch(r"\d+\.\d+\.\d+", server.json("GET", "/version")["version"])
        text = server.ask("GET", "/metrics")[2].decode()
        values = {}
        for line in text.splitlines():
            if not line.startswith("#"):
                name, value = re.fullmatch(r'([a-z0-9_:]+(?:\{(?:[a-z_]+="[^"]*",?)*\})?) (\S+)', line).groups()
                expect(name in values, False)
                values[name] = float(value)
        label = '{model_name="demo-mixed",engine="0"}'
        for name in ("vllm:generation_tokens_total", "tessera_generation_tokens_total"):
            expect(values[name + label], 44)
        expect(values["vllm:request_success_total" + label[:-1] + ',finished_reason="stop"}'], 4)
        for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"):
            expect(values[f"vllm:{name}{label}"], 0)
        for name in ("time_to_first_token_seconds", "e2e_request_latency_seconds",
                     "request_queue_time_seconds", "request_decode_time_seconds",
                     "request_inference_time_seconds"):
            expect(values[f"vllm:{name}_count{label}"], 4)
            expect(values[f'vllm:{name}_bucket{label[:-1]},le="+Inf"}}'], 4)
        expect(values[f"vllm:request_max_num_generation_tokens_sum{label}"], 11)
        expect(values[f"vllm:gpu_cache_usage_perc{label}"], 0)
        [size] = [name for name in values if name.startswith("vllm:cache_config_info")]
        assert ',num_gpu_blocks="100"}' in size and values[size] == 1, size
        status, fields, page = server.ask("GET", "/")
        expect((status, fields["Content-Type"]), (200, "text/html; charset=utf-8"))
        assert not re.search(rb'(src|href)\s*=\s*["\']?(https?:)?//', page)
    with ready(program, folder, "--metrics-compat", "none") as server:
        assert b"vllm:" not in server.ask("GET", "/metrics")[2]


def many_clients_keep_their_own(program, folder):
    """A third of them leave half-way; nothing is mixed up and nothing stays behind."""
    words = "one two three four five six seven eight nine ten".split()
    wrong = []

    def client(number, server):
        text = " ".join(words[(number + i) % 10] for i in range(5 + number % 7))
        for turn in range(3):
            if number % 3 == 0:
                body = json.dumps({"prompt": text, "stream": True, "ignore_eos": True,
                                   "max_tokens": 2000}).encode()
                with server.connect() as connection:
                    connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: "
                                       b"application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                    if turn % 2:
                        connection.recv(100)
            else:
                got, _ = deltas(server.events("/v1/completions", {"prompt": text, "max_tokens": 99}))
                if got != text:
                    wrong.append((text, got))

    with ready(program, folder) as server:
        clients = [threading.Thread(target=client, args=(n, server)) for n in range(30)]
        for thread in clients:
            thread.start()
        for thread in clients:
            thread.join()
        expect(wrong, [])
        server.wait_idle()
        until(lambda: server.json("GET", "/server_info")["connections"] == 1, "connections stay")


WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}}}}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'


def thoughts_and_calls_are_told_apart(program, folder):
    """The engine says the prompt back, and the prompt ends with what a model would say."""
    with tempfile.TemporaryDirectory() as styled:
        for name in os.listdir(folder):
            if name not in ("chat_template.jinja", "grading.jsonl"):
                os.symlink(os.path.abspath(os.path.join(folder, name)), os.path.join(styled, name))
        with open(os.path.join(styled, "chat_template.jinja"), "w") as template:
            template.write("{# <think> <tool_call> #}{% if reasoning_effort is defined %}{{ reasoning_effort }} "
                           "{% if enable_thinking is defined %}{{ enable_thinking }} {% endif %}{% endif %}"
                           "{{ messages[-1].content }}")
        with ready(program, styled) as server:
            text = f"<think>\nwhere?\n</think>\n\nLet me see.\n{CALL}\n{CALL}"
            body = chat(text, tools=[WEATHER])
            choice = server.json("POST", "/v1/chat/completions", body)["choices"][0]
            message = choice["message"]
            expect(choice["finish_reason"], "tool_calls")
            expect((message["reasoning_content"], message["content"]), ("where?", "Let me see."))
            calls = message["tool_calls"]
            expect([c["function"] for c in calls],
                   2 * [{"name": "weather", "arguments": '{"city": "Oslo"}'}])
            assert calls[0]["id"] != calls[1]["id"] and calls[0]["type"] == "function"

            events = server.events("/v1/chat/completions", body)
            choices = [json.loads(e)["choices"][0] for e in events[:-1]]
            pieces = [c["delta"] for c in choices]
            expect("".join(p.get("reasoning_content", "") for p in pieces), "where?")
            expect("".join(p.get("content", "") for p in pieces), "Let me see.")
            streamed = [p["tool_calls"][0] for p in pieces if "tool_calls" in p]
            expect([c["index"] for c in streamed], [0, 1])
            expect([c["function"] for c in streamed], [c["function"] for c in calls])
            expect(choices[-1]["finish_reason"], "tool_calls")

            for unasked in ({}, {"tools": []}, {"tools": [WEATHER], "tool_choice": "none"}):
                choice = server.json("POST", "/v1/chat/completions", chat(CALL, **unasked))["choices"][0]
                expect((choice["message"]["content"], choice["finish_reason"]), (CALL, "stop"))
            for field, names in (("reasoning", {"reasoning"}), ("both", {"reasoning", "reasoning_content"})):
                with ready(program, styled, "--reasoning-field", field) as other:
                    message = other.json("POST", "/v1/chat/completions", body)["choices"][0]["message"]
                    told = {k: v for k, v in message.items() if k.startswith("reasoning")}
                    expect(told, {name: "where?" for name in names})
                    pieces = [json.loads(e)["choices"][0]["delta"] for e in
                              other.events("/v1/chat/completions", body)[:-1]]
                    for name in ("reasoning", "reasoning_content"):
                        said = "".join(p.get(name, "") for p in pieces)
                        expect(said, "where?" if name in names else "")
            for effort, said in (("none", "none False Hi"), ("high", "high Hi"), (None, "Hi")):
                choice = server.json("POST", "/v1/chat/completions", chat("Hi", reasoning_effort=effort))
                expect(choice["choices"][0]["message"]["content"], said)
            error_of(server, "/v1/chat/completions", chat(reasoning_effort="much"), 400, "invalid_value",
                     "reasoning_effort")
            error_of(server, "/v1/completions", {"prompt": "a", "reasoning_effort": "low"}, 400,
                     "unsupported_parameter", "reasoning_effort")
            error_of(server, "/v1/chat/completions", chat(tools={}), 400, "invalid_value", "tools")
            error_of(server, "/v1/chat/completions", chat(tools=[{}]), 400, "invalid_value", "tools")
            error_of(server, "/v1/completions", {"prompt": "a", "tools": [WEATHER]}, 400,
                     "unsupported_parameter", "tools")
    with ready(program, folder) as server:
        error_of(server, "/v1/chat/completions", chat(tools=[WEATHER]), 400,
                 "unsupported_parameter", "tools")


def main():
    return run([
        completions_say_what_they_are,
        streams_come_in_order,
        usage_is_told_as_asked,
        answers_stop_where_they_should,
        wrong_bodies_are_refused_by_name,
        unknown_fields_can_be_refused,
        what_the_engine_refuses_is_an_error,
        a_lost_engine_is_a_pause,
        silence_is_bridged_by_comments,
        the_queue_has_an_end,
        loading_is_told,
        draining_finishes_what_runs,
        draining_ends_at_its_deadline,
        models_have_their_names,
        harnesses_score_and_tokenize,
        prompts_are_told_of, those_who_live_are_listed, a_token_shows_health,
        text_becomes_ids_and_back,
        numbers_are_told,
        many_clients_keep_their_own,
        thoughts_and_calls_are_told_apart,
    ], *sys.argv[1:3])


if __name__ == "__main__":
    sys.exit(main())
