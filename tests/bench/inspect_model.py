"""How long `gpumod model inspect` takes for a model in 100 files, against `cat` of just the bytes of their headers.

The files have true headers and holes for weights: 126 layers of a Llama 405B, as a GGUF series and as safetensors.
"""
import json
import os
import pathlib
import statistics
import struct
import subprocess
import tempfile
import time

GPUMOD = os.environ["GPUMOD_BINARY"]
FILES, LAYERS, WIDTH, KV_WIDTH, FEED_FORWARD, VOCABULARY = 100, 126, 16384, 1024, 53248, 128256
U32, TEXT, ARRAY, F32_TENSOR, Q4_K_TENSOR = 4, 8, 9, 0, 12


def tensors():
    """(GGUF's name, safetensors' name, shape with the fastest dimension first)."""
    yield "token_embd.weight", "model.embed_tokens.weight", [WIDTH, VOCABULARY]
    for layer in range(LAYERS):
        for gguf, hf, shape in (
            ("attn_norm", "input_layernorm", [WIDTH]),
            ("attn_q", "self_attn.q_proj", [WIDTH, WIDTH]),
            ("attn_k", "self_attn.k_proj", [WIDTH, KV_WIDTH]),
            ("attn_v", "self_attn.v_proj", [WIDTH, KV_WIDTH]),
            ("attn_output", "self_attn.o_proj", [WIDTH, WIDTH]),
            ("ffn_norm", "post_attention_layernorm", [WIDTH]),
            ("ffn_gate", "mlp.gate_proj", [WIDTH, FEED_FORWARD]),
            ("ffn_up", "mlp.up_proj", [WIDTH, FEED_FORWARD]),
            ("ffn_down", "mlp.down_proj", [FEED_FORWARD, WIDTH]),
        ):
            yield f"blk.{layer}.{gguf}.weight", f"model.layers.{layer}.{hf}.weight", shape
    yield "output_norm.weight", "model.norm.weight", [WIDTH]
    yield "output.weight", "lm_head.weight", [WIDTH, VOCABULARY]


def elements(shape):
    count = 1
    for extent in shape:
        count *= extent
    return count


def shares():
    """The tensors of each file."""
    every = list(tensors())
    return [every[len(every) * i // FILES : len(every) * (i + 1) // FILES] for i in range(FILES)]


def write(path, head, size_of_data, heads):
    path.write_bytes(head)
    os.truncate(path, len(head) + size_of_data)
    (heads / path.name).write_bytes(head)


def text(value):
    return struct.pack("<Q", len(value)) + value.encode()


def pair(key, kind, value):
    return text(key) + struct.pack("<I", kind) + value


def gguf(folder, heads):
    numbers = {
        "llama.block_count": LAYERS,
        "llama.context_length": 131072,
        "llama.embedding_length": WIDTH,
        "llama.feed_forward_length": FEED_FORWARD,
        "llama.attention.head_count": 128,
        "llama.attention.head_count_kv": 8,
    }
    words = [f"token{i}" for i in range(VOCABULARY)]
    vocabulary = struct.pack("<IQ", TEXT, len(words)) + b"".join(map(text, words))
    for index, share in enumerate(shares()):
        series = [("split.no", index), ("split.count", FILES), ("split.tensors.count", LAYERS * 9 + 3)]
        pairs = [pair(key, U32, struct.pack("<I", value)) for key, value in series]
        if index == 0:
            pairs.append(pair("general.architecture", TEXT, text("llama")))
            pairs += [pair(key, U32, struct.pack("<I", value)) for key, value in numbers.items()]
            pairs.append(pair("tokenizer.ggml.model", TEXT, text("gpt2")))
            pairs.append(pair("tokenizer.ggml.tokens", ARRAY, vocabulary))
        head, at = b"GGUF" + struct.pack("<IQQ", 3, len(share), len(pairs)) + b"".join(pairs), 0
        for name, _, shape in share:
            small = len(shape) == 1
            head += text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape)
            head += struct.pack("<IQ", F32_TENSOR if small else Q4_K_TENSOR, at)
            at += elements(shape) * 4 if small else elements(shape) // 256 * 144
        write(folder / f"model-{index + 1:05}-of-{FILES:05}.gguf", head + b"\0" * (-len(head) % 32), at, heads)
    return folder / f"model-00001-of-{FILES:05}.gguf"


def safetensors(folder, heads):
    weight_map = {}
    for index, share in enumerate(shares()):
        path, table, at = folder / f"model-{index + 1:05}-of-{FILES:05}.safetensors", {}, 0
        for _, name, shape in share:
            size = elements(shape) * 2
            table[name] = {"dtype": "BF16", "shape": shape[::-1], "data_offsets": [at, at + size]}
            weight_map[name] = path.name
            at += size
        header = json.dumps(table).encode()
        write(path, struct.pack("<Q", len(header)) + header, at, heads)
    index = json.dumps({"metadata": {}, "weight_map": weight_map})
    config = json.dumps({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": LAYERS, "hidden_size": WIDTH,
        "intermediate_size": FEED_FORWARD, "num_attention_heads": 128, "num_key_value_heads": 8,
        "max_position_embeddings": 131072, "vocab_size": VOCABULARY, "torch_dtype": "bfloat16",
    })
    for name, content in (("model.safetensors.index.json", index), ("config.json", config)):
        for place in (folder, heads):
            (place / name).write_text(content)
    return folder


def timed(command):
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


for make in (gguf, safetensors):
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as copy:
        model = make(pathlib.Path(folder), pathlib.Path(copy))
        command = [GPUMOD, "model", "inspect", model, "--json"]
        seen = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        heads = sorted(pathlib.Path(copy).iterdir())
        ours, theirs = [], []
        for _ in range(30):
            ours.append(timed(command))
            theirs.append(timed(["cat", *heads]))
        print(json.dumps({
            "format": make.__name__,
            "files": FILES,
            "tensors": seen["tensors"]["count"] if isinstance(seen["tensors"], dict) else seen["tensors"],
            "header_mib": sum(head.stat().st_size for head in heads) / 2**20,
            "inspect_ms": statistics.median(ours) * 1000,
            "cat_of_headers_ms": statistics.median(theirs) * 1000,
            "inspect_ratio": statistics.median(ours) / statistics.median(theirs),
        }))
