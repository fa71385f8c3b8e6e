#!/usr/bin/env python3
"""Makes tiny GGUF models for tests with a real llama-server. Standard library only; the same call gives the same bytes.

  make_gguf.py script OUT --text "Two and two is four." [--think "Let me see."]   answers exactly this, whatever is asked
  make_gguf.py chat   OUT [--seed 1]                                              answers random words
  make_gguf.py embed  OUT [--dim 64]                                              embeddings (BERT, mean pooling)
  make_gguf.py bad    OUT                                                         one of its weights alone: load fails
  make_gguf.py arch   OUT --like sliding                                          weights of zero, shaped like an architecture
  every kind: [--ctx 512] context length, [--name NAME] general.name

How `script` can answer word for word: its transformer block adds nothing (all its matrices are zero), the embedding of
token i is the unit vector i, and the output matrix holds one large weight per token: the row of its successor. So the
model is a table "after this token comes that one". What is no part of the text leads to the text's first token, and the
text's last token leads to the end of the turn. A table knows only the current token, so every token of the text must be
unlike the others: a word that comes twice is joined with what follows it into one token.
"""

import argparse
import array
import json
import pathlib
import random
import struct
import sys

ALIGNMENT = 32
TENSOR_F32 = 0


# --- the file format: header, key-value pairs, tensor table, aligned data -------------------------------------------


class U32(int):
    code, layout = 4, "<I"


class I32(int):
    code, layout = 5, "<i"


class F32(float):
    code, layout = 6, "<f"


STRING_CODE, ARRAY_CODE, BOOL_CODE = 8, 9, 7


def encoded_string(text):
    data = text.encode("utf-8")
    return struct.pack("<Q", len(data)) + data


def code_and_bytes(value):
    """The type code of a value in GGUF, and its bytes."""
    if isinstance(value, bool):
        return BOOL_CODE, struct.pack("<?", value)
    if isinstance(value, str):
        return STRING_CODE, encoded_string(value)
    if isinstance(value, list):
        items = [code_and_bytes(item) for item in value]
        head = struct.pack("<IQ", items[0][0], len(items))
        return ARRAY_CODE, head + b"".join(data for _, data in items)
    return value.code, struct.pack(value.layout, value)


class Model:
    """Collects metadata and tensors, then writes them in one go."""

    def __init__(self):
        self.metadata = {}
        self.tensors = []

    def tensor(self, name, shape, values):
        """`shape` has the fastest dimension first, as GGUF has it."""
        data = array.array("f", values)
        if sys.byteorder == "big":
            data.byteswap()
        expected = 1
        for extent in shape:
            expected *= extent
        if len(data) != expected:
            raise ValueError(f"{name}: {len(data)} values for shape {shape}")
        self.tensors.append((name, shape, data.tobytes()))

    def write(self, path):
        head = b"GGUF" + struct.pack("<IQQ", 3, len(self.tensors), len(self.metadata))
        for key, value in self.metadata.items():
            code, data = code_and_bytes(value)
            head += encoded_string(key) + struct.pack("<I", code) + data
        offset = 0
        for name, shape, data in self.tensors:
            head += encoded_string(name) + struct.pack("<I", len(shape))
            head += struct.pack(f"<{len(shape)}Q", *shape) + struct.pack("<IQ", TENSOR_F32, offset)
            offset += padded(len(data))
        with open(path, "wb") as out:
            out.write(head.ljust(padded(len(head)), b"\0"))
            for _, _, data in self.tensors:
                out.write(data.ljust(padded(len(data)), b"\0"))


def padded(length):
    return -(-length // ALIGNMENT) * ALIGNMENT


# --- vocabularies ---------------------------------------------------------------------------------------------------

TOKEN_NORMAL, TOKEN_UNKNOWN, TOKEN_CONTROL, TOKEN_USER, TOKEN_BYTE = 1, 2, 3, 4, 6
SPACE = "\u2581"  # SentencePiece writes a blank so
TURN_START, TURN_END = "<|turn>", "<turn|>"
THINK_START, THINK_END = "<think>", "</think>"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = (
    "a able after all also an and any as at back be because but by can come day do even first for from get give go good "
    "have he her his how if in into it its just know like look make me most my new no not now of on one only or other our "
    "out over people say see she so some take than that the their them then there these they think this time to two up us "
    "use want way we well what when which who will with work would year you your"
).split()


class Vocabulary:
    """A SentencePiece vocabulary. Token texts must differ: libllama aborts on two that are the same."""

    def __init__(self):
        self.texts, self.scores, self.kinds, self.ids = [], [], [], {}
        self.add("<unk>", TOKEN_UNKNOWN)
        self.begin = self.add("<s>", TOKEN_CONTROL)
        self.end = self.add("</s>", TOKEN_CONTROL)
        for byte in range(256):
            self.add(f"<0x{byte:02X}>", TOKEN_BYTE)
        self.turn_start = self.add(TURN_START, TOKEN_CONTROL)
        self.turn_end = self.add(TURN_END, TOKEN_CONTROL)
        self.think_start = self.add(THINK_START, TOKEN_USER)
        self.think_end = self.add(THINK_END, TOKEN_USER)
        for text in [SPACE, *LETTERS, *(SPACE + word for word in WORDS)]:
            self.add(text)

    def add(self, text, kind=TOKEN_NORMAL):
        """The id of this token; of the one that is there already, if it is."""
        if text in self.ids:
            return self.ids[text]
        self.ids[text] = len(self.texts)
        self.texts.append(text)
        self.scores.append(F32(-float(len(self.texts)) if kind == TOKEN_NORMAL else 0.0))
        self.kinds.append(I32(kind))
        return self.ids[text]

    def __len__(self):
        return len(self.texts)


def chat_template(reasons):
    turns = "{% for m in messages %}" + TURN_START + "{{ m.role }}\n{{ m.content }}" + TURN_END + "\n{% endfor %}"
    answer = TURN_START + "assistant\n"
    if reasons:
        # llama-server recognizes a reasoning template by what it does when thinking is switched off.
        answer += "{% if enable_thinking is defined and enable_thinking is false %}<think>\n</think>{% endif %}"
        turns = (
            "{% for m in messages %}" + TURN_START + "{{ m.role }}\n"
            "{% if m.role == 'assistant' and m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}"
            "{{ m.content }}" + TURN_END + "\n{% endfor %}"
        )
    return turns + "{% if add_generation_prompt %}" + answer + "{% endif %}"


def describe_vocabulary(model, vocabulary, template):
    model.metadata.update(
        {
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.pre": "default",
            "tokenizer.ggml.tokens": vocabulary.texts,
            "tokenizer.ggml.scores": vocabulary.scores,
            "tokenizer.ggml.token_type": vocabulary.kinds,
            "tokenizer.ggml.unknown_token_id": U32(0),
            "tokenizer.ggml.bos_token_id": U32(vocabulary.begin),
            "tokenizer.ggml.eos_token_id": U32(vocabulary.turn_end),
            "tokenizer.ggml.add_bos_token": True,
            "tokenizer.ggml.add_eos_token": False,
            "tokenizer.ggml.add_space_prefix": False,
            "tokenizer.chat_template": template,
        }
    )


def describe_llama(model, name, context, width, heads, hidden, blocks, tokens):
    model.metadata.update(
        {
            "general.architecture": "llama",
            "general.name": name,
            "general.file_type": U32(0),
            "llama.context_length": U32(context),
            "llama.embedding_length": U32(width),
            "llama.block_count": U32(blocks),
            "llama.feed_forward_length": U32(hidden),
            "llama.attention.head_count": U32(heads),
            "llama.attention.head_count_kv": U32(heads),
            "llama.attention.layer_norm_rms_epsilon": F32(1e-5),
            "llama.rope.dimension_count": U32(width // heads),
            "llama.rope.freq_base": F32(10000.0),
            "llama.vocab_size": U32(tokens),
        }
    )


def llama_blocks(model, count, width, hidden, values):
    """`values(n)` gives the n numbers of one matrix."""
    for block in range(count):
        prefix = f"blk.{block}."
        for norm in ("attn_norm", "ffn_norm"):
            model.tensor(f"{prefix}{norm}.weight", [width], [1.0] * width)
        for matrix in ("attn_q", "attn_k", "attn_v", "attn_output"):
            model.tensor(f"{prefix}{matrix}.weight", [width, width], values(width * width))
        for matrix, shape in (
            ("ffn_gate", [width, hidden]),
            ("ffn_up", [width, hidden]),
            ("ffn_down", [hidden, width]),
        ):
            model.tensor(f"{prefix}{matrix}.weight", shape, values(width * hidden))


# --- the kinds ------------------------------------------------------------------------------------------------------


def pieces_of(text, first="", last=""):
    """One piece a word; a blank belongs to the word behind it."""
    words = text.split(" ")
    pieces = [words[0], *(SPACE + word for word in words[1:])]
    pieces[0] = first + pieces[0]
    pieces[-1] += last
    return pieces


def unlike_each_other(pieces, taken):
    """Joins a piece that came before with those behind it; at the end of the text, with those before it."""
    joined = []
    position = 0
    while position < len(pieces):
        piece = pieces[position]
        position += 1
        while (piece in joined or piece in taken) and position < len(pieces):
            piece += pieces[position]
            position += 1
        while piece in joined or piece in taken:
            if not joined:
                raise SystemExit("this text cannot be told apart word by word")
            piece = joined.pop() + piece
        joined.append(piece)
    return joined


def make_script(model, options):
    vocabulary = Vocabulary()
    controls = {text for text, kind in zip(vocabulary.texts, vocabulary.kinds) if kind != TOKEN_NORMAL}
    chain = []
    if options.think:
        thought = unlike_each_other(pieces_of(options.think, "\n"), controls)
        answer = unlike_each_other(pieces_of(options.text, "\n\n"), controls | set(thought))
        chain += [vocabulary.think_start, *map(vocabulary.add, thought), vocabulary.think_end]
    else:
        answer = unlike_each_other(pieces_of(options.text), controls)
    chain += map(vocabulary.add, answer)

    tokens = len(vocabulary)
    width = -(-tokens // 32) * 32
    describe_llama(model, options.name or "tiny-script", options.ctx, width, 4, 32, 1, tokens)
    describe_vocabulary(model, vocabulary, chat_template(bool(options.think)))

    identity = array.array("f", bytes(4 * width * tokens))
    for token in range(tokens):
        identity[token * width + token] = 1.0
    # The norm before the output makes a unit vector sqrt(width) long: this weight becomes a logit of 40.
    certain = 40.0 / width**0.5
    successor = dict.fromkeys(range(tokens), chain[0])
    successor.update(zip(chain, chain[1:]))
    successor[chain[-1]] = vocabulary.turn_end
    table = array.array("f", bytes(4 * width * tokens))
    for token, following in successor.items():
        table[following * width + token] = certain

    model.tensor("token_embd.weight", [width, tokens], identity)
    model.tensor("output_norm.weight", [width], [1.0] * width)
    model.tensor("output.weight", [width, tokens], table)
    llama_blocks(model, 1, width, 32, lambda count: bytes_of_zeros(count))


def bytes_of_zeros(count):
    return array.array("f", bytes(4 * count))


def make_chat(model, options):
    vocabulary = Vocabulary()
    tokens, width, hidden, blocks = len(vocabulary), 64, 128, 2
    source = random.Random(options.seed)

    def noise(scale):
        return lambda count: [source.uniform(-scale, scale) for _ in range(count)]

    describe_llama(model, options.name or "tiny-chat", options.ctx, width, 4, hidden, blocks, tokens)
    describe_vocabulary(model, vocabulary, chat_template(False))
    model.tensor("token_embd.weight", [width, tokens], noise(1.0)(width * tokens))
    model.tensor("output_norm.weight", [width], [1.0] * width)
    # Only words have a say: no broken UTF-8 from byte tokens, no early end.
    output = []
    for kind in vocabulary.kinds:
        output += noise(3.0 / width**0.5)(width) if kind == TOKEN_NORMAL else [0.0] * width
    model.tensor("output.weight", [width, tokens], output)
    llama_blocks(model, blocks, width, hidden, noise(1.0 / width**0.5))


def make_embed(model, options):
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    characters = [*LETTERS, *"0123456789.,!?:;-"]
    texts = list(dict.fromkeys([*special, *(SPACE + w for w in WORDS), *(SPACE + c for c in characters), *characters]))
    tokens, width, hidden, blocks, heads = len(texts), options.dim, 128, 2, 4
    if width % heads or width <= 0:
        raise SystemExit(f"--dim must be a multiple of {heads}")
    source = random.Random(options.seed)
    scale = 1.0 / width**0.5

    def noise(count):
        return [source.uniform(-scale, scale) for _ in range(count)]

    def norm(name):
        model.tensor(f"{name}.weight", [width], [1.0] * width)
        model.tensor(f"{name}.bias", [width], [0.0] * width)

    def layer(name, inputs, outputs):
        model.tensor(f"{name}.weight", [inputs, outputs], noise(inputs * outputs))
        model.tensor(f"{name}.bias", [outputs], [0.0] * outputs)

    model.metadata.update(
        {
            "general.architecture": "bert",
            "general.name": options.name or "tiny-embed",
            "general.file_type": U32(0),
            "bert.context_length": U32(options.ctx),
            "bert.embedding_length": U32(width),
            "bert.block_count": U32(blocks),
            "bert.feed_forward_length": U32(hidden),
            "bert.attention.head_count": U32(heads),
            "bert.attention.layer_norm_epsilon": F32(1e-12),
            "bert.attention.causal": False,
            "bert.pooling_type": U32(1),  # mean
            "tokenizer.ggml.model": "bert",
            "tokenizer.ggml.pre": "default",
            "tokenizer.ggml.token_type_count": U32(2),
            "tokenizer.ggml.tokens": texts,
            "tokenizer.ggml.token_type": [
                I32(TOKEN_CONTROL if text in special else TOKEN_NORMAL) for text in texts
            ],
            "tokenizer.ggml.padding_token_id": U32(0),
            "tokenizer.ggml.unknown_token_id": U32(1),
            "tokenizer.ggml.bos_token_id": U32(2),
            "tokenizer.ggml.cls_token_id": U32(2),
            "tokenizer.ggml.eos_token_id": U32(3),
            "tokenizer.ggml.seperator_token_id": U32(3),  # the format spells it so
            "tokenizer.ggml.mask_token_id": U32(4),
        }
    )
    model.tensor("token_embd.weight", [width, tokens], noise(width * tokens))
    model.tensor("token_types.weight", [width, 2], noise(width * 2))
    model.tensor("position_embd.weight", [width, options.ctx], noise(width * options.ctx))
    norm("token_embd_norm")
    for block in range(blocks):
        prefix = f"blk.{block}."
        for matrix in ("attn_q", "attn_k", "attn_v", "attn_output"):
            layer(prefix + matrix, width, width)
        norm(prefix + "attn_output_norm")
        layer(prefix + "ffn_up", width, hidden)
        layer(prefix + "ffn_down", hidden, width)
        norm(prefix + "layer_output_norm")


def make_bad(model, options):
    vocabulary = Vocabulary()
    describe_llama(model, options.name or "tiny-bad", options.ctx, 64, 4, 128, 2, len(vocabulary))
    describe_vocabulary(model, vocabulary, chat_template(False))
    model.tensor("output_norm.weight", [64], bytes_of_zeros(64))


def make_arch(model, options):
    """A model of one of architectures.json: what a server loads, allocates caches for and answers nonsense with."""
    table = json.loads((pathlib.Path(__file__).parent / "architectures.json").read_text())
    if options.like not in table:
        raise SystemExit(f"--like must be one of {', '.join(table)}")
    shape = table[options.like]
    name = shape["architecture"]
    texts = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    kinds = [TOKEN_UNKNOWN, TOKEN_CONTROL, TOKEN_CONTROL, *([TOKEN_BYTE] * 256)]

    def typed(value):
        if isinstance(value, list):
            return [typed(item) for item in value]
        if isinstance(value, bool) or isinstance(value, str):
            return value
        return F32(value) if isinstance(value, float) else U32(value)

    model.metadata["general.architecture"] = name
    model.metadata["general.name"] = options.name or f"tiny-{options.like}"
    model.metadata[f"{name}.context_length"] = U32(options.ctx)
    model.metadata[f"{name}.vocab_size"] = U32(len(texts))
    model.metadata.update({f"{name}.{key}": typed(value) for key, value in shape["keys"].items()})
    model.metadata.update({key: typed(value) for key, value in shape.get("general", {}).items()})
    model.metadata["tokenizer.ggml.model"] = "llama"
    model.metadata["tokenizer.ggml.pre"] = "default"
    model.metadata["tokenizer.ggml.tokens"] = texts
    model.metadata["tokenizer.ggml.scores"] = [F32(0)] * len(texts)
    model.metadata["tokenizer.ggml.token_type"] = [I32(kind) for kind in kinds]
    for pattern, extents, *layers in shape["tensors"]:
        names = [pattern]
        if pattern.startswith("*."):
            blocks = layers[0] if layers else range(shape["keys"]["block_count"])
            names = [f"blk.{block}{pattern[1:]}" for block in blocks]
        for each in names:
            count = 1
            for extent in extents:
                count *= extent
            model.tensor(each, extents, bytes_of_zeros(count))


KINDS = {"script": make_script, "chat": make_chat, "embed": make_embed, "bad": make_bad, "arch": make_arch}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("out")
    parser.add_argument("--text", default="Hello from a very small model.", help="script: what it answers")
    parser.add_argument("--think", default="", help="script: what it thinks before it answers")
    parser.add_argument("--ctx", type=int, default=512, help="context length")
    parser.add_argument("--dim", type=int, default=64, help="embed: dimensions")
    parser.add_argument("--seed", type=int, default=1, help="chat, embed: of the random weights")
    parser.add_argument("--like", default="dense", help="arch: a name of architectures.json")
    parser.add_argument("--name", default="", help="general.name")
    options = parser.parse_args()
    model = Model()
    KINDS[options.kind](model, options)
    model.write(options.out)


if __name__ == "__main__":
    main()
