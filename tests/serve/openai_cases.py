#!/usr/bin/env python3
"""OpenAI's own client, unmodified.

openai_cases.py FAKE_SERVER FOLDER      exit code 77: the package openai is not here
"""

import asyncio
import sys
import time

try:
    import openai
except ImportError:
    sys.exit(77)

from server import Server, expect, run, until

TEXT = "What is 12 + 30?"
MESSAGES = [{"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": TEXT}]}]


def client_of(server, **more):
    return openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="key",
                         **{"max_retries": 0, "timeout": 20, **more})


def answers_are_read(program, folder):
    with Server(program, folder, "--api-key", "key") as server:
        client = client_of(server, max_retries=5)
        expect([m.id for m in client.models.list()], ["demo-mixed"])
        expect(client.models.retrieve("demo-mixed").id, "demo-mixed")
        until(lambda: server.ask("GET", "/health")[0] == 200, "it does not become ready")
        answer = client.chat.completions.create(model="demo-mixed", messages=MESSAGES, n=2,
                                                max_completion_tokens=50, seed=1, stop=["30"])
        expect([c.index for c in answer.choices], [0, 1])
        expect(answer.choices[0].finish_reason, "stop")
        assert answer.choices[0].message.content.endswith("12 + ")
        expect(answer._request_id.startswith("req_"), True)
        text = client.completions.create(model="demo-mixed", prompt=[TEXT, "Hi"], max_tokens=20)
        expect([c.text for c in text.choices], [TEXT, "Hi"])
        expect(text.usage.total_tokens, text.usage.prompt_tokens + text.usage.completion_tokens)


def streams_are_read(program, folder):
    with Server(program, folder) as server:
        server.wait_ready()
        client = client_of(server)
        whole = client.chat.completions.create(model="demo-mixed", messages=MESSAGES)
        stream = client.chat.completions.create(model="demo-mixed", messages=MESSAGES, stream=True,
                                                stream_options={"include_usage": True})
        chunks = list(stream)
        expect("".join(c.choices[0].delta.content or "" for c in chunks if c.choices),
               whole.choices[0].message.content)
        expect(chunks[-1].usage, whole.usage)
        with client.chat.completions.stream(model="demo-mixed", messages=MESSAGES, n=3) as events:
            for _ in events:
                pass
            final = events.get_final_completion()
        expect([c.message.content for c in final.choices], [whole.choices[0].message.content] * 3)
        text = client.completions.create(model="demo-mixed", prompt=TEXT, stream=True, max_tokens=30)
        expect("".join(c.choices[0].text for c in text), TEXT)
        # one that is closed early is cancelled
        endless = client.completions.create(model="demo-mixed", prompt=TEXT, stream=True,
                                            max_tokens=4000, extra_body={"ignore_eos": True})
        next(iter(endless))
        endless.close()
        server.wait_idle()


def errors_are_raised(program, folder):
    with Server(program, folder, "--api-key", "key") as server:
        time.sleep(0.1)
        client = client_of(server)

        def ask(**more):
            return client.completions.create(**{"model": "demo-mixed", "prompt": TEXT, **more})

        for kind, more, code in (
            (openai.BadRequestError, {"temperature": 5}, "invalid_value"),
            (openai.BadRequestError, {"max_tokens": 10**6}, "context_length_exceeded"),
            (openai.NotFoundError, {"model": "other"}, "model_not_found"),
            (openai.InternalServerError, {"seed": 902}, "not_finite"),
        ):
            try:
                ask(**more)
                raise AssertionError(f"{more} is answered")
            except kind as error:
                expect(error.code, code)
        try:
            client_of(server, max_retries=3).completions.create(
                model="demo-mixed", prompt=TEXT, seed=902)  # not tried again
        except openai.InternalServerError:
            pass
        expect(server.ask("GET", "/metrics")[2].decode().count('status="500"} 2'), 1)
        try:
            openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="no",
                          max_retries=0).models.list()
            raise AssertionError("a wrong key is let in")
        except openai.AuthenticationError as error:
            expect(error.code, "invalid_api_key")
        try:
            for _ in ask(seed=902, stream=True):
                pass
            raise AssertionError("an error in a stream is not noticed")
        except openai.APIError as error:
            expect(error.code, "not_finite")


def a_server_that_is_not_ready_is_asked_again(program, folder):
    with Server(program, folder, load_ms=700) as server:
        text = client_of(server, max_retries=5).completions.create(model="demo-mixed", prompt="Hi")
        expect(text.choices[0].text, "Hi")


def many_ask_at_once(program, folder):
    async def ask(client, number):
        text = f"one two {number}"
        stream = await client.completions.create(model="demo-mixed", prompt=text, max_tokens=40,
                                                 stream=True)
        return text, "".join([c.choices[0].text async for c in stream])

    async def all_of(server):
        client = openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="key")
        return await asyncio.gather(*[ask(client, n) for n in range(50)])

    with Server(program, folder) as server:
        server.wait_ready()
        for text, got in asyncio.run(all_of(server)):
            expect(got, text)


def main():
    return run([answers_are_read, streams_are_read, errors_are_raised,
                a_server_that_is_not_ready_is_asked_again, many_ask_at_once], *sys.argv[1:3])


if __name__ == "__main__":
    sys.exit(main())
