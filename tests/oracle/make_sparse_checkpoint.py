#!/usr/bin/env python3
"""Writes a checkpoint of released size that holds headers and no weights: sparse files.

    make_sparse_checkpoint.py qwen3-235b-a22b DIR [--keys block|expert] [--shard-gib 10]
    make_sparse_checkpoint.py glm-4.6 DIR --mtp index|outside|side|none

As ModelOpt exports it, mixed: routed experts NVFP4, attention, dense and shared MLPs FP8, the rest
BF16. DIR then holds config.json, generation_config.json, hf_quant_config.json, the index and
shards. Prints the bytes of all tensors. Needs Python alone; every weight reads as zero.
"""
import argparse
import json
import os
import struct

QWEN3 = dict(
    architectures=["Qwen3MoeForCausalLM"], model_type="qwen3_moe", attention_bias=False,
    decoder_sparse_step=1, hidden_act="silu", mlp_only_layers=[], norm_topk_prob=True,
    num_experts_per_tok=8, rms_norm_eps=1e-6, sliding_window=None, use_sliding_window=False,
    tie_word_embeddings=False, vocab_size=151936, eos_token_id=151645, head_dim=128,
    num_key_value_heads=4, num_local_experts=128, max_position_embeddings=40960,
    rope_parameters=dict(rope_theta=1000000.0, rope_type="default"), dtype="bfloat16")
GLM4 = dict(
    architectures=["Glm4MoeForCausalLM"], model_type="glm4_moe", attention_bias=True,
    hidden_act="silu", norm_topk_prob=True, num_experts_per_tok=8, rms_norm_eps=1e-5,
    tie_word_embeddings=False, vocab_size=151552, eos_token_id=[151329, 151336, 151338],
    head_dim=128, num_key_value_heads=8, n_group=1, topk_group=1, n_shared_experts=1,
    num_nextn_predict_layers=1, dtype="bfloat16", partial_rotary_factor=0.5,
    rope_parameters=dict(rope_theta=1000000.0, rope_type="default", partial_rotary_factor=0.5))
SHAPES = {
    "qwen3-30b-a3b": QWEN3 | dict(
        hidden_size=2048, num_hidden_layers=48, num_attention_heads=32,
        moe_intermediate_size=768, intermediate_size=6144),
    "qwen3-235b-a22b": QWEN3 | dict(
        hidden_size=4096, num_hidden_layers=94, num_attention_heads=64,
        moe_intermediate_size=1536, intermediate_size=12288),
    "glm-4.5-air": GLM4 | dict(
        hidden_size=4096, num_hidden_layers=46, num_attention_heads=96, n_routed_experts=128,
        moe_intermediate_size=1408, intermediate_size=10944, first_k_dense_replace=1,
        routed_scaling_factor=1.0, use_qk_norm=False, max_position_embeddings=131072),
    "glm-4.6": GLM4 | dict(
        hidden_size=5120, num_hidden_layers=92, num_attention_heads=96, n_routed_experts=160,
        moe_intermediate_size=1536, intermediate_size=12288, first_k_dense_replace=3,
        routed_scaling_factor=2.5, use_qk_norm=True, max_position_embeddings=202752),
}
BYTES = {"BF16": 2, "F32": 4, "U8": 1, "F8_E4M3": 1}


def tensor_bytes(dtype, shape):
    count = BYTES[dtype]
    for dim in shape:
        count *= dim
    return count


class Tensors:
    """The tensors in the order of the model, and the rows of quantized_layers."""

    def __init__(self):
        self.rows = []
        self.layers = {}

    def add(self, name, dtype, *shape):
        self.rows.append((name, dtype, list(shape)))

    def linear(self, name, out, inner, algo, listed=True):
        if algo == "NVFP4":
            self.add(name + ".input_scale", "F32")
            self.add(name + ".weight", "U8", out, inner // 2)
            self.add(name + ".weight_scale", "F8_E4M3", out, inner // 16)
            self.add(name + ".weight_scale_2", "F32")
        elif algo == "FP8":
            self.add(name + ".input_scale", "F32")
            self.add(name + ".weight", "F8_E4M3", out, inner)
            self.add(name + ".weight_scale", "F32")
        else:
            self.add(name + ".weight", "BF16", out, inner)
        if algo != "BF16" and listed:
            self.declare(name, algo)

    def declare(self, name, algo):
        self.layers[name] = {"quant_algo": "NVFP4", "group_size": 16} if algo == "NVFP4" else {
            "quant_algo": algo}


def mlp(t, name, hidden, width, algo, listed=True):
    t.linear(name + ".down_proj", hidden, width, algo, listed)
    t.linear(name + ".gate_proj", width, hidden, algo, listed)
    t.linear(name + ".up_proj", width, hidden, algo, listed)


def attention(t, name, c, algo):
    hidden, dim = c["hidden_size"], c["head_dim"]
    queries, keys = c["num_attention_heads"] * dim, c["num_key_value_heads"] * dim
    for part, out in (("q", queries), ("k", keys), ("v", keys)):
        t.linear(f"{name}.{part}_proj", out, hidden, algo)
        if c["attention_bias"]:
            t.add(f"{name}.{part}_proj.bias", "BF16", out)
    t.linear(name + ".o_proj", hidden, queries, algo)
    if c.get("use_qk_norm", True):
        t.add(name + ".k_norm.weight", "BF16", dim)
        t.add(name + ".q_norm.weight", "BF16", dim)


def layer(t, c, index, keys, quantized=True):
    name, hidden = f"model.layers.{index}", c["hidden_size"]
    fp8, fp4 = ("FP8", "NVFP4") if quantized else ("BF16", "BF16")
    glm = c["model_type"] == "glm4_moe"
    t.add(name + ".input_layernorm.weight", "BF16", hidden)
    t.add(name + ".post_attention_layernorm.weight", "BF16", hidden)
    attention(t, name + ".self_attn", c, fp8)
    if glm and index < c["first_k_dense_replace"]:
        mlp(t, name + ".mlp", hidden, c["intermediate_size"], fp8)
        return
    experts, width = c.get("n_routed_experts") or c["num_local_experts"], c["moe_intermediate_size"]
    t.add(name + ".mlp.gate.weight", "BF16", experts, hidden)
    if glm:
        t.add(name + ".mlp.gate.e_score_correction_bias", "F32", experts)
        mlp(t, name + ".mlp.shared_experts", hidden, width * c["n_shared_experts"], fp8)
    for e in range(experts):
        mlp(t, f"{name}.mlp.experts.{e}", hidden, width, fp4, keys == "expert")
    if keys == "block" and quantized:
        t.declare(name + ".mlp.experts", fp4)


def further_prediction(t, c):
    index, hidden = c["num_hidden_layers"], c["hidden_size"]
    name = f"model.layers.{index}"
    layer(t, c, index, "block", quantized=False)
    t.add(name + ".enorm.weight", "BF16", hidden)
    t.add(name + ".hnorm.weight", "BF16", hidden)
    t.add(name + ".eh_proj.weight", "BF16", hidden, 2 * hidden)
    t.add(name + ".shared_head.norm.weight", "BF16", hidden)
    t.add(name + ".shared_head.head.weight", "BF16", c["vocab_size"], hidden)
    t.add(name + ".embed_tokens.weight", "BF16", c["vocab_size"], hidden)


def split(rows, most):
    shards, used = [[]], 0
    for row in rows:
        size = tensor_bytes(row[1], row[2])
        if used + size > most and shards[-1]:
            shards.append([])
            used = 0
        shards[-1].append(row)
        used += size
    return shards


def write_shard(path, rows):
    header, at = {"__metadata__": {"format": "pt"}}, 0
    # the order of the safetensors library: wide elements first, then by name
    for name, dtype, shape in sorted(rows, key=lambda r: (-BYTES[r[1]], r[0])):
        end = at + tensor_bytes(dtype, shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)))
        f.write(text)
        f.truncate(8 + len(text) + at)


def write_json(path, value):
    with open(path, "w") as f:
        json.dump(value, f, indent=4)
        f.write("\n")


def groups(layers):
    found = {}
    for name, row in layers.items():
        found.setdefault(json.dumps(row), []).append(name)
    result = {}
    for i, (row, names) in enumerate(found.items()):
        fp4 = "NVFP4" in row
        body = {"dynamic": False, "num_bits": 4 if fp4 else 8, "type": "float"}
        if fp4:
            body["group_size"] = 16
        result[f"group_{i}"] = {"input_activations": body, "weights": body,
                                "targets": sorted(names)}
    return result


def write_configs(folder, c, layers):
    producer = {"name": "modelopt", "version": "0.47.0"}
    quant = {"config_groups": groups(layers), "quantized_layers": layers, "ignore": [],
             "quant_algo": "MIXED_PRECISION", "producer": producer, "quant_method": "modelopt"}
    write_json(os.path.join(folder, "config.json"), c | {"quantization_config": quant})
    write_json(os.path.join(folder, "generation_config.json"),
               {"do_sample": True, "eos_token_id": c["eos_token_id"]})
    write_json(os.path.join(folder, "hf_quant_config.json"), {
        "producer": producer,
        "quantization": {"quant_algo": "MIXED_PRECISION", "kv_cache_quant_algo": None,
                         "quantized_layers": layers}})


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("shape", choices=sorted(SHAPES))
    parser.add_argument("folder")
    parser.add_argument("--keys", choices=["block", "expert"], default="block")
    parser.add_argument("--mtp", choices=["index", "outside", "side", "none"], default="none",
                        help="where GLM's layer of further prediction stands")
    parser.add_argument("--layers", type=int, help="fewer layers than released")
    parser.add_argument("--shard-gib", type=float, default=10.0)
    args = parser.parse_args()

    c = dict(SHAPES[args.shape])
    if args.layers:
        c["num_hidden_layers"] = args.layers
    t, mtp = Tensors(), Tensors()
    t.add("model.embed_tokens.weight", "BF16", c["vocab_size"], c["hidden_size"])
    for i in range(c["num_hidden_layers"]):
        layer(t, c, i, args.keys)
    t.add("model.norm.weight", "BF16", c["hidden_size"])
    t.add("lm_head.weight", "BF16", c["vocab_size"], c["hidden_size"])
    if args.mtp != "none":
        further_prediction(mtp, c)

    os.makedirs(args.folder, exist_ok=True)
    trunk = {row[0] for row in t.rows}
    rows = t.rows + (mtp.rows if args.mtp in ("index", "outside") else [])
    shards = split(rows, int(args.shard_gib * (1 << 30)))
    weight_map, total = {}, 0
    for i, shard in enumerate(shards):
        name = f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
        write_shard(os.path.join(args.folder, name), shard)
        for row in shard:
            total += tensor_bytes(row[1], row[2])
            if args.mtp == "index" or row[0] in trunk:
                weight_map[row[0]] = name
    if args.mtp == "side":
        write_shard(os.path.join(args.folder, "mtp.safetensors"), mtp.rows)
    write_json(os.path.join(args.folder, "model.safetensors.index.json"),
               {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))})
    write_configs(args.folder, c, t.layers)
    print(json.dumps({"tensors": len(rows), "shards": len(shards), "bytes": total}))


if __name__ == "__main__":
    main()
