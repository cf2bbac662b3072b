/*
 * A byte-level vocabulary without merges. How byte-level tokenizers spell bytes: printable ones as
 * they are, the others by the characters from U+0100 on, in order.
 */
#include "runtime/synthetic/config_files.h"

enum { BYTES = 256 };

static const char front[] =
    "{\n\"version\": \"1.0\",\n\"added_tokens\": [\n%s],\n\"normalizer\": {\"type\": \"NFC\"},\n"
    "\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": "
    "true},\n\"post_processor\": null,\n\"decoder\": {\"type\": \"ByteLevel\"},\n"
    "\"model\": {\"type\": \"BPE\", \"byte_fallback\": false, \"ignore_merges\": false, "
    "\"merges\": [],\n\"vocab\": {";

static bool is_itself(int byte)
{
    return (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

/* In JSON: as it is where ASCII allows, else by its number. */
static tsr_status add_byte(int byte, int code, tsr_text *text)
{
    const char *comma = byte > 0 ? ", " : "";

    if (code < 0x7f && code != '"' && code != '\\')
        return tsr_text_add_format(text, "%s\"%c\": %d", comma, (char)code, byte);
    return tsr_text_add_format(text, "%s\"\\u%04x\": %d", comma, (unsigned)code, byte);
}

static tsr_status add_added(int32_t vocab, tsr_text *text)
{
    static const char *const names[TSR_SYNTHETIC_ADDED_TOKENS] = {"<|endoftext|>", "<|im_start|>",
                                                                  "<|im_end|>"};
    tsr_status st = TSR_OK;

    for (int i = 0; i < TSR_SYNTHETIC_ADDED_TOKENS && st == TSR_OK; i++)
        st = tsr_text_add_format(text,
                                 "{\"id\": %d, \"content\": \"%s\", \"single_word\": false, "
                                 "\"lstrip\": false, \"rstrip\": false, \"normalized\": false, "
                                 "\"special\": true}%s\n",
                                 vocab - TSR_SYNTHETIC_ADDED_TOKENS + i, names[i],
                                 i + 1 < TSR_SYNTHETIC_ADDED_TOKENS ? "," : "");
    return st;
}

tsr_status tsr_tokenizer_text(int32_t vocab, tsr_text *text)
{
    tsr_text added = {0};
    int beyond = 0x100;

    tsr_status st = add_added(vocab, &added);
    if (st == TSR_OK)
        st = tsr_text_add_format(text, front, added.bytes);
    tsr_text_close(&added);
    for (int byte = 0; byte < BYTES && st == TSR_OK; byte++)
        st = add_byte(byte, is_itself(byte) ? byte : beyond++, text);
    for (int32_t id = BYTES; id < vocab - TSR_SYNTHETIC_ADDED_TOKENS && st == TSR_OK; id++)
        st = tsr_text_add_format(text, ",\n\"word%d\": %d", id, id);
    if (st == TSR_OK)
        st = tsr_text_add_string(text, "}}}\n");
    return st;
}
