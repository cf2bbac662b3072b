#!/usr/bin/env python3
"""Damaged checkpoints, none of which may be served.

    damaged.py PROGRAM DATA [--sanitized] [NAME ...]

Each row below damages a copy of a good checkpoint in one place and says what the refusal must name:
the file, and the tensor or field in it. The program must exit with 3, print one to four lines, take
no more than SECONDS and no more memory than a few times what the files have. --sanitized leaves the
limits on time and memory out; NAMEs run these rows alone. The undamaged checkpoint must be served.
"""
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time

SECONDS = 2.0
LINES = 4
MEMORY_OF_FILES = 8
MEMORY_OF_PROGRAM = 48 << 20
LAYER = "model.layers.0."
EXPERT = LAYER + "mlp.experts.0."
WEIGHTS = "model.safetensors"

ROWS = []


def row(name, *wanted, base="qwen3-mixed"):
    def keep(damage):
        ROWS.append((name, wanted, base, damage))
        return damage
    return keep


class Folder:
    """A copy whose files are changed one at a time."""

    def __init__(self, path):
        self.path = path

    def of(self, name):
        return os.path.join(self.path, name)

    def read(self, name):
        with open(self.of(name), "rb") as file:
            return file.read()

    def write(self, name, data):
        with open(self.of(name), "wb") as file:
            file.write(data if isinstance(data, bytes) else data.encode())

    def edit_json(self, name, change):
        value = json.loads(self.read(name))
        changed = change(value)
        self.write(name, json.dumps(value if changed is None else changed))

    def replace(self, name, old, new):
        text = self.read(name).decode()
        assert old in text, (name, old)
        self.write(name, text.replace(old, new, 1))

    def header(self):
        raw = self.read(WEIGHTS)
        count = struct.unpack("<Q", raw[:8])[0]
        return json.loads(raw[8:8 + count]), raw[8 + count:]

    def put_header(self, header, payload):
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        self.write(WEIGHTS, struct.pack("<Q", len(text)) + text + payload)

    def edit_header(self, change):
        header, payload = self.header()
        changed = change(header)
        self.put_header(header if changed is None else changed, payload)

    def edit_tensors(self, change):
        """As a list of name, dtype, shape, bytes, laid out again afterwards."""
        header, payload = self.header()
        header.pop("__metadata__", None)
        tensors = {name: [t["dtype"], t["shape"], payload[t["data_offsets"][0]:t["data_offsets"][1]]]
                   for name, t in header.items()}
        change(tensors)
        out, body = {}, b""
        for name, (dtype, shape, data) in tensors.items():
            out[name] = {"dtype": dtype, "shape": shape,
                         "data_offsets": [len(body), len(body) + len(data)]}
            body += data
        self.put_header(out, body)

    def poke(self, name, at, data):
        raw = bytearray(self.read(WEIGHTS))
        header, _ = self.header()
        first = 8 + struct.unpack("<Q", raw[:8])[0] + header[name]["data_offsets"][0] + at
        raw[first:first + len(data)] = data
        self.write(WEIGHTS, bytes(raw))


# --- the container -----------------------------------------------------------------------------

def cut(size):
    def damage(f):
        raw = f.read(WEIGHTS)
        f.write(WEIGHTS, raw[:size if size >= 0 else len(raw) + size])
    return damage


for bytes_left in (0, 4, 8, 100, 700000, -1):
    row("cut at %d" % bytes_left, WEIGHTS)(cut(bytes_left))

for number in (0, 1, 1 << 40, (1 << 63) - 1, (1 << 64) - 1):
    row("header of %d bytes" % number, WEIGHTS)(
        lambda f, n=number: f.write(WEIGHTS, struct.pack("<Q", n) + f.read(WEIGHTS)[8:]))

for kind, text in {
        "no JSON": b"x" * 64, "a list": b"[1]", "zeros": bytes(64), "open": b'{"a":', "deep": b"[" * 4000,
        "object, deep": b'{"a":' * 4000, "two keys": b'{"a":1,"a":2}', "text": b'{"a":"b"}',
        "latin": b'{"\xe9":1}'}.items():
    row("header is " + kind, WEIGHTS)(lambda f, t=text: f.put_header(t, b""))


@row("a byte behind the last tensor", WEIGHTS, "1 bytes behind")
def _(f):
    f.write(WEIGHTS, f.read(WEIGHTS) + b"x")


@row("a pointer of git lfs", WEIGHTS, "git lfs pull")
def _(f):
    f.write(WEIGHTS, "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1361344\n")


@row("a folder in the file's place", WEIGHTS)
def _(f):
    os.remove(f.of(WEIGHTS))
    os.mkdir(f.of(WEIGHTS))


@row("a link to nowhere", WEIGHTS)
def _(f):
    os.remove(f.of(WEIGHTS))
    os.symlink("nowhere", f.of(WEIGHTS))


def entry(name, change, *wanted):
    def damage(f):
        f.edit_header(lambda h: change(h[EXPERT + "up_proj.weight"]))
    row("entry: " + name, WEIGHTS, *(wanted or ("experts.0.up_proj.weight",)))(damage)


entry("dtype unknown", lambda t: t.update(dtype="Q4_K"))
entry("dtype a number", lambda t: t.update(dtype=4))
entry("dtype left out", lambda t: t.pop("dtype") and None)
entry("dtype of another size", lambda t: t.update(dtype="F32"))
entry("shape negative", lambda t: t.update(shape=[-64, 64]))
entry("shape of fractions", lambda t: t.update(shape=[64.5, 64]))
entry("shape of text", lambda t: t.update(shape=["64", 64]))
entry("shape a number", lambda t: t.update(shape=4096))
entry("shape too long", lambda t: t.update(shape=[1] * 9))
entry("shape beyond memory", lambda t: t.update(shape=[1 << 40, 1 << 40]))
entry("shape beyond 64 bits", lambda t: t.update(shape=[10 ** 30, 64]))
entry("shape larger than its bytes", lambda t: t.update(shape=[65, 64]))
entry("offsets beyond the file", lambda t: t.update(data_offsets=[1 << 40, (1 << 40) + 4096]), "truncated")
entry("offsets backwards", lambda t: t.update(data_offsets=t["data_offsets"][::-1]))
entry("offsets of three", lambda t: t["data_offsets"].append(9))
entry("offsets negative", lambda t: t.update(data_offsets=[-4096, 0]))
entry("offsets over another", lambda t: t.update(data_offsets=[0, 4096]), "overlaps")
entry("a field too many", lambda t: t.update(scale=1))


def tensors(name, change, *wanted):
    row("tensors: " + name, *wanted)(lambda f: f.edit_tensors(change))


def named(t, old, new):
    t[new] = t.pop(old)


tensors("weight missing", lambda t: t.pop(EXPERT + "up_proj.weight"), "experts.0.up_proj.weight is missing")
tensors("scale missing", lambda t: t.pop(EXPERT + "up_proj.weight_scale"), "experts.0.up_proj.weight_scale")
tensors("global scale missing", lambda t: t.pop(EXPERT + "up_proj.weight_scale_2"), "weight_scale_2")
tensors("norm missing", lambda t: t.pop("model.norm.weight"), "model.norm.weight")
tensors("head missing", lambda t: t.pop("lm_head.weight"), "lm_head")
tensors("router missing", lambda t: t.pop(LAYER + "mlp.gate.weight"), "mlp.gate")
tensors("one that belongs to nothing", lambda t: t.update({"extra.weight": ["F32", [1], bytes(4)]}), "extra.weight")
tensors("a scale too many", lambda t: t.update({"model.layers.2.mlp.experts.0.up_proj.weight_scale": ["F32", [], bytes(4)]}),
        "layers.2.mlp.experts.0.up_proj.weight_scale")
tensors("weights of another exporter", lambda t: named(t, EXPERT + "up_proj.weight", EXPERT + "up_proj.weight_packed"),
        "up_proj.weight_packed")
tensors("renamed", lambda t: named(t, EXPERT + "up_proj.weight", EXPERT + "w3.weight"), "experts.0.up_proj.weight")
tensors("no name", lambda t: t.update({"": ["F32", [1], bytes(4)]}), WEIGHTS)
tensors("a name of control characters", lambda t: t.update({"a\x1b[2J\nb": ["F32", [1], bytes(4)]}), WEIGHTS)
tensors("a name without end", lambda t: t.update({"x" * 5000: ["F32", [1], bytes(4)]}), WEIGHTS)
tensors("weights turned", lambda t: t[EXPERT + "down_proj.weight"].__setitem__(1, [32, 128]), "experts.0.down_proj.weight")
tensors("scales turned", lambda t: t[EXPERT + "down_proj.weight_scale"].__setitem__(1, [4, 128]), "down_proj.weight_scale")
tensors("packed as I8", lambda t: t[EXPERT + "up_proj.weight"].__setitem__(0, "I8"), "experts.0.up_proj.weight is I8")
tensors("FP8 as E5M2", lambda t: t[LAYER + "self_attn.q_proj.weight"].__setitem__(0, "F8_E5M2"), "q_proj.weight is F8_E5M2")
tensors("scales as E8M0", lambda t: t[EXPERT + "up_proj.weight_scale"].__setitem__(0, "F8_E8M0"), "F8_E8M0")
tensors("norm too short", lambda t: t.update({"model.norm.weight": ["BF16", [64], bytes(128)]}), "model.norm.weight")
tensors("one layer less", lambda t: [t.pop(k) for k in list(t) if k.startswith("model.layers.3.")], "layers.3.")
tensors("one expert less", lambda t: [t.pop(k) for k in list(t) if ".experts.7." in k], "experts.7.")
tensors("none", lambda t: t.clear(), "is missing")
tensors("experts fused, quantized", lambda t: t.update({LAYER + "mlp.experts.gate_up_proj": ["U8", [8, 128, 64], bytes(65536)]}),
        "gate_up_proj", "all experts of a layer in U8")


@row("600000 empty tensors", WEIGHTS, "600000 of them empty")
def _(f):
    """Written piece by piece: what this script has taken counts as the program's, too."""
    header, payload = f.header()
    end = len(payload)
    head = json.dumps(header).encode()[:-1]
    one = b',"e.%06d":{"dtype":"F32","shape":[0],"data_offsets":[%d,%d]}'
    count = 600000
    with open(f.of(WEIGHTS), "wb") as file:
        file.write(struct.pack("<Q", len(head) + count * len(one % (0, end, end)) + 1) + head)
        for i in range(count):
            file.write(one % (i, end, end))
        file.write(b"}" + payload)


def poke(name, tensor, data, at=0):
    row("value: " + name, tensor)(lambda f: f.poke(tensor, at, data))


poke("NaN in a weight", "model.layers.2.mlp.experts.0.up_proj.weight", b"\xc0\x7f", 20)
poke("infinity in the embedding", "model.embed_tokens.weight", b"\x80\x7f", 4000)
poke("NaN in FP8", LAYER + "self_attn.q_proj.weight", b"\x7f", 99)
poke("NaN in block scales", EXPERT + "up_proj.weight_scale", b"\x7f", 17)
poke("negative block scale", EXPERT + "up_proj.weight_scale", b"\x88", 17)
poke("NaN as global scale", EXPERT + "up_proj.weight_scale_2", b"\0\0\xc0\x7f")
poke("infinity as input scale", EXPERT + "up_proj.input_scale", b"\0\0\x80\x7f")
poke("negative scale", LAYER + "self_attn.q_proj.weight_scale", b"\0\0\x80\xbf")
poke("NaN in a norm", "model.norm.weight", b"\xc0\xff")


# --- the index ---------------------------------------------------------------------------------

INDEX = "model.safetensors.index.json"


def index(name, change, *wanted):
    def damage(f):
        header, _ = f.header()
        header.pop("__metadata__", None)
        os.rename(f.of(WEIGHTS), f.of("model-00001-of-00001.safetensors"))
        weight_map = {k: "model-00001-of-00001.safetensors" for k in header}
        f.write(INDEX, change(weight_map))
    row("index: " + name, *(wanted or (INDEX,)))(damage)


def mapped(change):
    def text(weight_map):
        change(weight_map)
        return json.dumps({"metadata": {}, "weight_map": weight_map})
    return text


index("cut", lambda m: json.dumps({"weight_map": m})[:999])
index("a list", lambda m: json.dumps([m]))
index("no map", lambda m: json.dumps({"metadata": {}}), "weight_map")
index("map a list", lambda m: json.dumps({"weight_map": list(m)}), "weight_map")
index("empty", lambda m: json.dumps({"weight_map": {}}), "names 0 files")
index("a file that is not there", mapped(lambda m: m.update({"model.norm.weight": "model-2.safetensors"})), "model-2.safetensors")
index("a path", mapped(lambda m: m.update({"model.norm.weight": "../model.safetensors"})), "model.norm.weight")
index("a number", mapped(lambda m: m.update({"model.norm.weight": 7})), "model.norm.weight")
index("a tensor too many", mapped(lambda m: m.update({"extra": "model-00001-of-00001.safetensors"})), '"extra"')
index("a tensor less", mapped(lambda m: m.pop("model.norm.weight")), "model.norm.weight")


@row("shards without an index", INDEX, "has model-00001-of-00002.safetensors")
def _(f):
    os.rename(f.of(WEIGHTS), f.of("model-00001-of-00002.safetensors"))


@row("no weights", "neither model.safetensors nor")
def _(f):
    os.remove(f.of(WEIGHTS))


# --- the configurations ------------------------------------------------------------------------

def config(field, value, *wanted, base="qwen3-mixed", file="config.json"):
    def damage(f):
        if value is None:
            f.edit_json(file, lambda c: c.pop(field) and None)
        else:
            f.edit_json(file, lambda c: c.update({field: value}))
    row("%s: %s %s" % (file, field, json.dumps(value)[:40]), file, *(wanted or (field,)), base=base)(damage)


for file in ("config.json", "generation_config.json", "hf_quant_config.json"):
    for kind, text in {"empty": "", "cut": '{"a": 1', "a list": "[]", "null": "null", "twice": '{"a":1,"a":2}',
                       "no UTF-8": b'{"a": "\xff"}', "deep": '{"a":' * 5000}.items():
        row("%s is %s" % (file, kind), file)(lambda f, n=file, t=text: f.write(n, t))


@row("config.json missing", "config.json")
def _(f):
    os.remove(f.of("config.json"))


for field in ("hidden_size", "num_hidden_layers", "vocab_size", "num_attention_heads", "num_key_value_heads", "head_dim",
              "moe_intermediate_size", "num_experts_per_tok", "max_position_embeddings"):
    for value in (0, -1, 1.5, "128", 10 ** 30, [128], None):
        config(field, value)
config("hidden_size", 136)
config("hidden_size", 256, "config.json and the weights do not belong together")
config("num_attention_heads", 5, "num_key_value_heads")
config("num_experts_per_tok", 99)
config("num_local_experts", 16, "experts.8.")
config("model_type", "llama")
config("model_type", 7)
config("architectures", ["Qwen3MoeForSequenceClassification"])
config("architectures", "Qwen3MoeForCausalLM")
config("rope_parameters", {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4}, "rope_type")
config("rope_parameters", "default")
config("rope_parameters", {"rope_type": "default", "rope_theta": -1}, "rope_theta")
config("rms_norm_eps", "1e-6")
config("hidden_act", "gelu")
config("layer_types", "full_attention")
config("layer_types", ["sliding_attention"] * 4)
config("layer_types", ["full_attention"] * 3)
config("norm_topk_prob", 1)
config("tie_word_embeddings", "yes")
config("attention_bias", True)
config("mlp_bias", True)
config("eos_token_id", "</s>")
config("eos_token_id", 100000)
config("quantization_config", [])
config("decoder_sparse_step", 0)
config("mlp_only_layers", [9])
config("temperature", "hot", file="generation_config.json")
config("top_p", 2, file="generation_config.json")
config("top_k", 10 ** 30, file="generation_config.json")
config("eos_token_id", {}, file="generation_config.json")


def quant(name, change, *wanted):
    row("quantization: " + name, *wanted)(
        lambda f: f.edit_json("hf_quant_config.json", lambda c: change(c["quantization"])))


BLOCK = LAYER + "mlp.experts"
quant("an unknown format", lambda q: q["quantized_layers"][BLOCK].update(quant_algo="NVFP5"), BLOCK, "NVFP5")
quant("another format", lambda q: q["quantized_layers"][BLOCK].update(quant_algo="FP8"), "experts.0.")
quant("another group", lambda q: q["quantized_layers"][BLOCK].update(group_size=32), BLOCK)
quant("a negative group", lambda q: q["quantized_layers"][BLOCK].update(group_size=-16), BLOCK)
quant("a row without a format", lambda q: q["quantized_layers"].update({BLOCK: {}}), BLOCK)
quant("a row of text", lambda q: q["quantized_layers"].update({BLOCK: "NVFP4"}), BLOCK)
quant("a row missing", lambda q: q["quantized_layers"].pop(BLOCK) and None, "experts.0.")
quant("a row for one expert", lambda q: q["quantized_layers"].update({BLOCK + ".0.up_proj": {"quant_algo": "FP8"}}), BLOCK)
quant("rows as a list", lambda q: q.update(quantized_layers=[]), "quantized_layers")
quant("uniform", lambda q: q.update(quant_algo="NVFP4"), "quantized_layers")
quant("a bad expression", lambda q: q.update(exclude_modules=["re:(("]), "hf_quant_config.json")
quant("INT8 for the cache", lambda q: q.update(kv_cache_quant_algo="INT8"), "INT8")
quant("zero points", lambda q: q["quantized_layers"][BLOCK].update(has_zero_point=True), BLOCK)
quant("powers of two", lambda q: q.update(scale_fmt="ue8m0"), "scale_fmt")


@row("an overlay", "quant_cfg.json")
def _(f):
    f.write("quant_cfg.json", "{}")


# --- text --------------------------------------------------------------------------------------

def text(name, file, change, *wanted):
    row("text: " + name, file, *wanted, base="demo-mixed")(lambda f: change(f, file))


def tokenizer(name, change, *wanted):
    text(name, "tokenizer.json", lambda f, n: f.edit_json(n, change), *wanted)


text("tokenizer missing", "tokenizer.json", lambda f, n: os.remove(f.of(n)))
text("tokenizer cut", "tokenizer.json", lambda f, n: f.write(n, f.read(n)[:5000]))
text("tokenizer a list", "tokenizer.json", lambda f, n: f.write(n, "[]"))
tokenizer("another model", lambda t: t["model"].update(type="Unigram"), "Unigram")
tokenizer("no vocabulary", lambda t: t["model"].update(vocab={}), "model.vocab")
tokenizer("an id beyond", lambda t: t["model"]["vocab"].update(zz=10 ** 30), "zz")
tokenizer("an id twice", lambda t: t["model"]["vocab"].update(zz=7), "id 7")
tokenizer("a merge of nothing", lambda t: t["model"]["merges"].append(["Q", "\u4e00"]), "model.merges")
tokenizer("a pattern without end", lambda t: t["pre_tokenizer"]["pretokenizers"][0]["pattern"].update(Regex="(a"))
tokenizer("another normalizer", lambda t: t.update(normalizer={"type": "Lowercase"}), "Lowercase")
tokenizer("another decoder", lambda t: t.update(decoder={"type": "Metaspace"}), "Metaspace")
tokenizer("a post-processor of BERT", lambda t: t.update(post_processor={"type": "BertProcessing"}), "BertProcessing")
tokenizer("an added token twice", lambda t: t["added_tokens"].append(dict(t["added_tokens"][0])))
text("configuration cut", "tokenizer_config.json", lambda f, n: f.write(n, "{"))
text("another end", "tokenizer_config.json", lambda f, n: f.replace(n, "<|im_end|>", "<|x|>"), "eos_token")
text("a token in front", "tokenizer_config.json", lambda f, n: f.replace(n, "{", '{"add_bos_token": true,'), "add_bos_token")
text("a token of its own", "tokenizer_config.json",
     lambda f, n: f.replace(n, "{", '{"added_tokens_decoder": {"5": {"content": "<|x|>"}},'), "added_tokens_decoder")
text("template cut", "chat_template.jinja", lambda f, n: f.write(n, "{% for m in messages %}"))
text("template without an end", "chat_template.jinja", lambda f, n: f.write(n, "{{ " + "(" * 5000))
text("template of bytes", "chat_template.jinja", lambda f, n: f.write(n, b"{{ '\xff\xfe' }}{% nothing %}"))
text("sampling not served", "generation_config.json", lambda f, n: f.replace(n, "{", '{"typical_p": 0.5,'),
     "typical_p")


# --- running them ------------------------------------------------------------------------------

def run(program, base, folder, scratch):
    if base == "demo-mixed":
        command = [program, "run", folder, "--chat", "hello", "--max-tokens", "1"]
    else:
        command = [program, "score", folder, "--tokens", os.path.join(scratch, "tokens.json"),
                   "--out", os.path.join(scratch, "logits.safetensors")]
    with open(os.path.join(scratch, "said"), "wb") as said:
        start = time.monotonic()
        child = subprocess.Popen(command + ["--threads", "1", "--log-level", "warn"],
                                 stdout=subprocess.DEVNULL, stderr=said)
        _, status, usage = os.wait4(child.pid, 0)
        took = time.monotonic() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    with open(os.path.join(scratch, "said"), encoding="utf-8", errors="replace") as said:
        return child.returncode, said.read(), took, usage.ru_maxrss << 10


def complaints(result, wanted, size, sanitized):
    code, said, took, memory = result
    lines = said.splitlines()
    if code != 3:
        yield "exit code %d" % code
    if not 1 <= len(lines) <= LINES:
        yield "%d lines" % len(lines)
    for word in wanted:
        if word not in said:
            yield "does not say %r" % word
    if not sanitized and took > SECONDS:
        yield "took %.1f s" % took
    if not sanitized and memory > MEMORY_OF_PROGRAM + MEMORY_OF_FILES * size:
        yield "took %d MiB for files of %d MiB" % (memory >> 20, size >> 20)


def copy(data, base, scratch):
    path = os.path.join(scratch, "checkpoint")
    shutil.rmtree(path, ignore_errors=True)
    os.mkdir(path)
    for name in os.listdir(os.path.join(data, base)):
        source = os.path.join(data, base, name)
        if os.path.isfile(source) and name not in ("expected.safetensors", "grading.jsonl"):
            shutil.copyfile(source, os.path.join(path, name))
    return Folder(path)


def size_of(path):
    return sum(os.path.getsize(os.path.join(path, name)) for name in os.listdir(path)
               if os.path.isfile(os.path.join(path, name)))


def main():
    program, data = sys.argv[1:3]
    sanitized = "--sanitized" in sys.argv
    chosen = [a for a in sys.argv[3:] if a not in ("", "--sanitized")]
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="tessera-damaged-") as scratch:
        with open(os.path.join(scratch, "tokens.json"), "w", encoding="utf-8") as file:
            file.write("[[1, 2, 3]]")
        for base in ("qwen3-mixed", "demo-mixed"):
            result = run(program, base, copy(data, base, scratch).path, scratch)
            if result[0] != 0:
                sys.exit("%s, undamaged: exit code %d: %s" % (base, result[0], result[1]))
        slowest, largest = 0.0, 0
        for name, wanted, base, damage in ROWS:
            if chosen and name not in chosen:
                continue
            folder = copy(data, base, scratch)
            damage(folder)
            result = run(program, base, folder.path, scratch)
            slowest, largest = max(slowest, result[2]), max(largest, result[3])
            found = list(complaints(result, wanted, size_of(folder.path), sanitized))
            if found or chosen:
                print("%s: %s\n%s" % (name, ", ".join(found) or "refused", result[1]), flush=True)
            wrong += bool(found)
    print("%d damaged checkpoints, %d not refused as they should be; the slowest took %.2f s, the largest %d MiB"
          % (len(ROWS), wrong, slowest, largest >> 20))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
