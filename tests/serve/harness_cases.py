"""Programs that score and load OpenAI servers, unmodified, on a real server of four ranks. Exit code 77:
the program is not installed here.

usage: harness_cases.py lm_eval|guidellm TESSERA DEMO_FOLDER
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile

from server import Server, expect, until

HARNESS, TESSERA, DEMO = sys.argv[1:4]
QUESTIONS = [json.loads(line) for line in open(os.path.join(DEMO, "grading.jsonl"))][:12]
PROMPT = r"<|im_start|>user\n{{question}}<|im_end|>\n<|im_start|>assistant\n"
TASKS = {
    "gen": """
output_type: generate_until
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 16, do_sample: false, temperature: 0}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
""",
    "mc": """
output_type: multiple_choice
doc_to_choice: choices
doc_to_target: gold
target_delimiter: ""
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
""",
}


def program():
    beside = os.path.join(os.path.dirname(sys.executable), HARNESS)
    return beside if os.access(beside, os.X_OK) else shutil.which(HARNESS)


def choices_of(answer):
    """The right one among its neighbours, at a place that differs."""
    at = answer % 3
    return [str(answer - at + i) for i in range(3)], at


def write_tasks(folder):
    with open(os.path.join(folder, "questions.jsonl"), "w") as file:
        for q in QUESTIONS:
            choices, gold = choices_of(int(q["expected"]))
            line = {"question": q["question"], "answer": q["expected"], "choices": choices, "gold": gold}
            file.write(json.dumps(line) + "\n")
    for name, rest in TASKS.items():
        with open(os.path.join(folder, name + ".yaml"), "w") as file:
            file.write(f'task: demo_{name}\ndataset_path: json\ntest_split: test\n'
                       f'dataset_kwargs: {{data_files: {{test: {folder}/questions.jsonl}}}}\n'
                       f'doc_to_text: "{PROMPT}"{rest}')


def command(folder, *words):
    quiet = {"HF_HUB_OFFLINE": "1", "HF_HOME": folder, "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run([program(), *words], capture_output=True, text=True, timeout=100, cwd=folder,
                          env={**os.environ, **quiet})
    if done.returncode != 0:
        raise AssertionError(done.stdout[-2000:] + done.stderr[-2000:])
    return done.stdout


def lm_eval(url, folder):
    """It generates and it scores, with the server's tokenizer and no other; all answers are right."""
    write_tasks(folder)
    told = command(folder, "run", "--model", "local-completions", "--tasks", "demo_gen,demo_mc",
                   "--include_path", folder, "--model_args",
                   f"model=demo-mixed,base_url={url}/v1/completions,num_concurrent=4,"
                   "tokenizer_backend=remote,max_length=2048")
    scores = re.findall(r"\|demo_(?:gen|mc).*\|(?:exact_match|acc)\s*\|.*?\|\s+([\d.]+)\|", told)
    expect(scores, ["1", "1"])


def guidellm(url, folder):
    """Every request is answered with as many tokens as were asked for."""
    out = os.path.join(folder, "report.json")
    command(folder, "run", "--backend", f"kind=openai_http,target={url}", "--profile",
            "kind=concurrent,streams=4", "--constraint", "kind=max_requests,count=16", "--tokenizer",
            f"kind=huggingface_auto,model={os.path.abspath(DEMO)}", "--data",
            "kind=synthetic_text,prompt_tokens=64,output_tokens=32", "--output", f"kind=json,path={out}",
            "--disable-console-interactive")
    [benchmark] = json.load(open(out))["benchmarks"]
    requests = benchmark["requests"]
    expect((len(requests["successful"]), len(requests["errored"]), len(requests["incomplete"])), (16, 0, 0))
    expect({r["output_metrics"]["text_tokens"] for r in requests["successful"]}, {32})


def main():
    if program() is None:
        print(f"{HARNESS} is not installed")
        return 77
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Server.__new__(Server)
    server.port = port
    process = subprocess.Popen([TESSERA, "serve", DEMO, "--ranks", "4", "--port", str(port),
                                "--log-level", "warn"])
    try:
        until(lambda: can_connect(server), "it does not listen")
        server.wait_ready()
        with tempfile.TemporaryDirectory() as folder:
            {"lm_eval": lm_eval, "guidellm": guidellm}[HARNESS](f"http://127.0.0.1:{port}", folder)
        process.terminate()
        expect(process.wait(timeout=30), 0)
    finally:
        process.kill()
    print(f"{HARNESS}: ok")
    return 0


def can_connect(server):
    try:
        server.connect().close()
    except OSError:
        return False
    return True


sys.exit(main())
