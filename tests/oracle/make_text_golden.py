#!/usr/bin/env python3
"""Writes tests/data/text: small tokenizers and what the `tokenizers` library makes of many texts.

Two tokenizers are trained here, one of the Qwen3 family and one of the GLM-4.5 family, on the few
texts below; three tiny ones turn on what those two leave off; the demo model's is the sixth.
Everything is chosen by fixed seeds. Only code points of Unicode 14 occur, so the interpreter must
have the tables of exactly that version (Python 3.11). Run from the repository root:

    python3 tests/oracle/make_text_golden.py

Files, integers little-endian, "varint" being LEB128:

    texts.bin         u32 count; per text: varint bytes, the bytes (not always valid UTF-8)
    ranges.bin        u32 count; per range of assigned code points: u32 first, u32 last
    NAME/encode.bin   u32 step; for every step-th text: ids, ids when special tokens are text
                      (varint count; varint ids; a second count of 0 stands for "the same")
    NAME/decode.bin   u32 count; per sequence: ids; text; text without special tokens
    NAME/sweep.bin    u32 blocks; u64 hash of the ids of each text of 128 assigned code points
"""
import json
import pathlib
import random
import struct
import unicodedata

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers, trainers

OUT = pathlib.Path("tests/data/text")
DEMO = pathlib.Path("tests/data/demo-mixed/tokenizer.json")
SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*"
         r"|\s*[\r\n]+|\s+(?!\S)|\s+")
BLOCK = 128

SENTENCES = """\
The quick brown fox jumps over the lazy dog, and nobody's there to see it; they'll never know we've been.
It's what I'd call a well-known problem: you're sure that she'll come, but he won't, and I'm not surprised.
Naïve café owners in Zürich serve crème brûlée, jalapeños, smørrebrød and Škoda-sized pierogi — über good!
El niño comió una manzana y después se fue a la estación; ¿cuántos años tiene la señora Muñoz?
Où est la bibliothèque? Là-bas, près de l'église; c'est l'été qu'on l'aime, aujourd'hui n'est rien.
Die Straße führt über größere Brücken, während König Ödipus schöne Äpfel verkauft.
Zażółć gęślą jaźń. Příliš žluťoučký kůň úpěl ďábelské ódy. Árvíztűrő tükörfúrógép.
Tiếng Việt có nhiều dấu: trường đại học, người Hà Nội, phở bò, bánh mì và cà phê sữa đá.
Съешь же ещё этих мягких французских булок, да выпей чаю. Київ — столиця України, їжак і ґанок.
Ξεσκεπάζω την ψυχοφθόρα βδελυγμία. Η Αθήνα είναι πρωτεύουσα της Ελλάδας, και ὁ ἄνθρωπος ἦν ἀγαθός.
نص حكيم له سر قاطع وذو شأن عظيم مكتوب على ثوب أخضر. مُحَمَّدٌ يَكْتُبُ الدَّرْسَ، والسلام ١٢٣٤٥.
דג סקרן שט בים מאוכזב ולפתע מצא חברה. בְּרֵאשִׁית בָּרָא אֱלֹהִים אֵת הַשָּׁמַיִם.
ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण का सर्वनाश हुआ। हिन्दी में १२३ और क़लम लिखें।
বাংলা ভাষা আমাদের মাতৃভাষা। தமிழ் மொழி மிகவும் பழமையானது. తెలుగు భాష అందమైనది.
เป็นมนุษย์สุดประเสริฐเลิศคุณค่า กว่าบรรดาฝูงสัตว์เดรัจฉาน น้ำใจ ๑๒๓
人人生而自由,在尊严和权利上一律平等。他们赋有理性和良心,并应以兄弟关系的精神相对待。第３章
すべての人間は、生まれながらにして自由であり、カタカナとｶﾀｶﾅ、がぎぐげご。
모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. 한글 자모 ㄱㄴㄷ
Emoji: 😀 😃 👍🏽 👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇯🇵 ❤️ ☕ ✓ 1️⃣ 🤷🏻‍♀️ and plain text.
def main(argv: list[str]) -> int:\n    for i in range(10):\n        print(f"{i:03d}", end="\\n")\n    return 0\n
static int add(int a, int b)\n{\n\treturn a + b; /* sum */\n}\n\n#include <stdio.h>\n#define MAX(a, b) ((a) > (b) ? (a) : (b))\n
<div class="box" id='x1'>\r\n  <p>Hello &amp; goodbye</p>\r\n</div>\r\n{"name": "get_weather", "arguments": {"city": "Paris"}}
Numbers: 0 1 12 123 1234 12345 3.14159 1,000,000 2024-05-17T12:34:56Z 0xDEADBEEF ½ ⅔ Ⅷ ² ① 一二三 ٠١٢ 𝟘𝟙𝟚
∀x∈ℝ: ⌈x⌉ = −⌊−x⌋, α ∧ ¬β = ¬(¬α ∨ β), ∑ᵢ xᵢ² ≤ ∫ f(x) dx → ∞ ± √2 ≈ 1.414 €100 £20 ¥3000 ₹50
"Quotes" 'single' “curly” ‘it’s’ «guillemets» „low“ — en–dash … ellipsis\u00a0nbsp\u2003em\u3000wide\u200bzero
"""

MARKS = "\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030c\u0323\u0327\u0328\u0331\u0334" \
        "\u0338\u0345\u05b0\u05b4\u05bc\u05c1\u064b\u0650\u0651\u093c\u094d\u09be\u0e38\u0e48\u3099\u309a" \
        "\u1161\u11a8\u0f71\u0f72\u0f74\u1dc0\u20d0\u20dd\U0001d165\U0001d16e\u0898\u1abf\U00011930"
BASES = "aAeEiouyczsZ1 .\u00e4\u0439\u03b1\u03c9\u0915\u0928\u1100\u1112\uac00\uac01\u304b\u30cf\u09c7" \
        "\u0b47\u0d46\u1025\u1e9b\u212b\u2126\u2260\ufb1d\uf900\U0002f800\U0001d157\u0344\u0958\u0fb2\U00011935"
SPACES = [" ", " ", "  ", "\n", "\r", "\r\n", "\t", "\v", "\f", "\u0085", "\u00a0", "\u180e", "\u200b",
          "\u1680", "\u2003", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000", "\ufeff", "\u001c", "\u001f", "\0"]
INKS = ["a", "b1", "Z", "7", "12", "123", "1234", ".", "!?", "-", "_", "'", "'s", "'S", "'\u017f", "'ll", "'RE",
        "'vE", "'d", "'T", "'m", "''t", "\u2019s", "\u00e9", "\u0301", "\u4e2d", "\u0e01", "\u0661", "\u00bd",
        "\u2160", "\U0001f600", "\u200d", "(", "\ud7a3", "\u212a", "'\u0131"]
CONTRACTIONS = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'LL", "'Ve", "'\u017f", "'x", "'", "'st", "'rl", "'1"]


def trained(digits, normalizer, specials, vocab_size):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT % digits), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, min_frequency=1, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    corpus = SENTENCES.replace("\\n", "\n").replace("\\r", "\r").replace("\\t", "\t")
    tokenizer.train_from_iterator([corpus, SENTENCES], trainer)
    for content, special in specials:
        tokenizer.add_tokens([AddedToken(content, special=special, normalized=False)])
    return json.loads(tokenizer.to_str())


def qwen3():
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>",
             "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>",
             "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"]
    plain = ["<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>",
             "<|repo_name|>", "<|file_sep|>", "<tool_response>", "</tool_response>", "<think>", "</think>"]
    return trained("", normalizers.NFC(), [(n, True) for n in names] + [(n, False) for n in plain], 2300)


def glm4():
    names = ["<|endoftext|>", "[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>", "<|system|>", "<|user|>",
             "<|assistant|>", "<|observation|>"]
    plain = ["<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>",
             "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>", "/nothink"]
    file = trained("{1,3}", None, [(n, True) for n in names] + [(n, False) for n in plain], 2300)
    file["model"]["merges"] = [" ".join(pair) for pair in file["model"]["merges"]]
    file["model"]["continuing_subword_prefix"] = ""
    file["model"]["end_of_word_suffix"] = ""
    return file


def tiny(**changes):
    """A few merges, and one thing the larger two do not have."""
    specials = [("<a>", True), ("<a><b>", False), ("<b", True), ("caf\u00e9", False), ("x y", False), ("\u00e9!", True)]
    file = trained("", changes.get("normalizer"), specials, 340)
    file["model"]["ignore_merges"] = changes.get("ignore_merges", False)
    for token in file["added_tokens"]:
        token["normalized"] = changes.get("normalized", False) and token["content"] != "<a>"
    if changes.get("whole"):
        for word in changes["whole"]:
            spelled = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(word)
            file["model"]["vocab"].setdefault(spelled[0][0], len(file["model"]["vocab"]))
        for i, token in enumerate(file["added_tokens"]):
            token["id"] = len(file["model"]["vocab"]) + i
    if changes.get("byte_level"):
        file["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return file


def assigned_ranges():
    ranges = []
    for code in range(0x110000):
        if unicodedata.category(chr(code)) in ("Cn", "Cs"):
            continue
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return [r for r in ranges if r[0] not in (0xf0000, 0x100000)]  # private planes: nothing to learn


def make_texts(rng, codes, added):
    lines = SENTENCES.splitlines()
    corpus = SENTENCES.replace("\\n", "\n").replace("\\r", "\r")
    texts = [b"", b"a", b" ", b"\0", "\u0301".encode()]
    texts += [line.encode() for line in lines]
    texts += [unicodedata.normalize(form, line).encode() for line in lines for form in ("NFD", "NFKC")]

    def some(pool, low, high):
        return "".join(rng.choice(pool) for _ in range(rng.randint(low, high)))

    for _ in range(700):
        texts.append(some(SPACES + INKS, 1, 12).encode())
    for _ in range(250):
        texts.append(some(SPACES + ["a", ".", "1"], 1, 9).encode())
    for _ in range(150):
        texts.append(some(CONTRACTIONS + ["we", "I", " ", "he", "\u00e9", "9"], 1, 8).encode())
    for _ in range(300):
        texts.append("".join(chr(rng.choice(codes)) for _ in range(rng.randint(1, 12))).encode())
    for _ in range(300):
        start = rng.randrange(len(corpus))
        texts.append(corpus[start:start + rng.randint(1, 60)].encode())
    for _ in range(400):
        texts.append("".join(rng.choice(BASES) + some(MARKS, 0, 4) for _ in range(rng.randint(1, 4))).encode())
    for _ in range(120):
        jamo = "".join(chr(rng.choice([0x1100 + rng.randrange(21), 0x1161 + rng.randrange(23), 0x11a7 + rng.randrange(29),
                                       0xac00 + 28 * rng.randrange(399)])) for _ in range(rng.randint(1, 6)))
        texts.append(jamo.encode())
    pieces = added + [content[:-1] for content in added[:12]] + ["<", "<|", "|>", " ", "\n", "ab", "e\u0301", "\u4e2d", "1"]
    for _ in range(450):
        texts.append(some(pieces, 1, 7).encode())
    for _ in range(350):
        good = some(INKS + SPACES, 1, 8).encode()
        bad = bytearray(good + bytes(rng.randrange(128, 256) for _ in range(rng.randint(0, 4))))
        for _ in range(rng.randint(0, 3)):
            bad[rng.randrange(len(bad))] = rng.choice([0x80, 0xbf, 0xc0, 0xc2, 0xe0, 0xed, 0xa0, 0xf0, 0xf4, 0x90, 0xff, 0x41])
        texts.append(bytes(bad))
    for lead in (0xc1, 0xc2, 0xe0, 0xe1, 0xed, 0xef, 0xf0, 0xf1, 0xf4, 0xf5):
        for second in (0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0):
            texts.append(bytes([lead, second, 0x80, 0xbf, 0x41]))
    texts += [b"a" * 3000, b" " * 3000, b" " * 2000 + b"\n" * 2000 + b"x", b"ab" * 1500, b"1" * 1000, b"\xff" * 300,
              b"!" * 1000, ("x" + "\u0301\u0323" * 400).encode(), ("\u4e2d" * 700).encode(), b"<" * 500, b"<|im_start" * 60]
    return texts


def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7f | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def blob(data):
    return varint(len(data)) + data


def id_list(ids):
    return varint(len(ids)) + b"".join(varint(i) for i in ids)


def encode(tokenizer, text, plain=False):
    tokenizer.encode_special_tokens = plain
    return tokenizer.encode(text, add_special_tokens=False).ids


def fnv(ids):
    value = 0xcbf29ce484222325
    for i in ids:
        for byte in struct.pack("<I", i):
            value = (value ^ byte) * 0x100000001b3 & 0xffffffffffffffff
    return value


def sweep_text(codes):
    """Every code point among letters, digits, spaces, quotes and marks of other classes."""
    return "".join("a%s %s1%s'%ss\u0345%s\u0334\n" % ((chr(c),) * 5) for c in codes)


def write(name, file, texts, codes, step, rng):
    folder = OUT / name
    folder.mkdir(parents=True, exist_ok=True)
    if name != "demo":
        (folder / "tokenizer.json").write_text(json.dumps(file, ensure_ascii=False, separators=(",", ":")) + "\n")
    tokenizer = Tokenizer.from_str(json.dumps(file))

    out = bytearray(struct.pack("<I", step))
    for text in texts[::step]:
        text = text.decode("utf-8", "replace")
        ids, plain = encode(tokenizer, text), encode(tokenizer, text, True)
        out += id_list(ids) + (b"\0" if ids == plain else id_list(plain))
    (folder / "encode.bin").write_bytes(out)

    count = 300 if step == 1 else 100
    out = bytearray(struct.pack("<I", count))
    size = tokenizer.get_vocab_size()
    for _ in range(count):
        low = rng.choice([256, 256, size])
        ids = [rng.randrange(size - 30, size + 5) if rng.random() < 0.1 else rng.randrange(low)
               for _ in range(rng.randint(1, 20))]
        out += id_list(ids)
        for skip in (False, True):
            out += blob(tokenizer.decode(ids, skip_special_tokens=skip).encode())
    (folder / "decode.bin").write_bytes(out)

    blocks = [codes[i:i + BLOCK] for i in range(0, len(codes), BLOCK)]
    if step > 1:
        blocks = blocks[:64]
    hashes = [fnv(encode(tokenizer, sweep_text(block))) for block in blocks]
    (folder / "sweep.bin").write_bytes(struct.pack("<I%dQ" % len(hashes), len(hashes), *hashes))


def main():
    assert unicodedata.unidata_version == "14.0.0", "the code points must be those of Unicode 14"
    rng = random.Random(20)
    ranges = assigned_ranges()
    codes = [c for first, last in ranges for c in range(first, last + 1)]
    files = {
        "qwen3": qwen3(),
        "glm4": glm4(),
        "demo": json.loads(DEMO.read_text()),
        "tiny-normalized": tiny(normalized=True, normalizer=normalizers.NFC()),
        "tiny-whole-words": tiny(ignore_merges=True, whole=["water", " caf\u00e9", "1234", "\u4e2d\u4e2d", "abab"]),
        "tiny-byte-level": tiny(byte_level=True, normalizer=normalizers.Sequence([normalizers.NFC()])),
    }
    added = [t["content"] for f in files.values() for t in f["added_tokens"]] + ["cafe\u0301", "water", " caf\u00e9"]
    texts = make_texts(rng, codes, sorted(set(added)))
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "texts.bin").write_bytes(struct.pack("<I", len(texts)) + b"".join(blob(t) for t in texts))
    flat = [edge for r in ranges for edge in r]
    (OUT / "ranges.bin").write_bytes(struct.pack("<I%dI" % len(flat), len(ranges), *flat))
    for name, file in files.items():
        write(name, file, texts, codes, 1 if name in ("qwen3", "glm4") else 3, rng)
    print("tokenizers", tokenizers.__version__, "texts", len(texts), "code points", len(codes), "bytes",
          sum(p.stat().st_size for p in OUT.rglob("*") if p.is_file()))


if __name__ == "__main__":
    main()
