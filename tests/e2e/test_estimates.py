"""What gpumod computes from a model's header, against what a real llama-server says of the same file and flags.

Run by hand with --table, it prints the comparison for docs/measurements.md.
"""
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

from harness import GPUMOD, LLAMA, free_port, needs_llama

SUPPORT = pathlib.Path(__file__).resolve().parent.parent / "support"
ARCHITECTURES = json.loads((SUPPORT / "architectures.json").read_text())
MIB = 1024 * 1024
EMBEDDINGS = 259 * 64 * 4 / MIB
COPIED = {"shared-caches"}

# Flags of llama-server, and the same for gpumod.
FLAGS = {
    "default": ([], []),
    "two slots": (["--parallel", "2"], ["--parallel", "2"]),
    "one slot": (["--parallel", "1"], ["--parallel", "1"]),
}


def load_log(model, flags, embeddings):
    """What llama-server writes until the model is loaded, or it gives up."""
    command = [LLAMA, "-m", model, "--port", str(free_port()), "--offline", "--no-warmup", "-v", "-fit", "off"]
    command += ["--load-mode", "none", *flags, *(["--embeddings"] if embeddings else [])]
    lines = []
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    try:
        for line in server.stdout:
            lines.append(line)
            if "model loaded" in line:
                return "".join(lines)
    finally:
        server.kill()
        server.wait()
        server.stdout.close()
    raise AssertionError("llama-server did not load it: " + "".join(lines[-5:]))


def said(log, buffer):
    """The sum of its buffers of one kind, in MiB with two places, and how far off that sum may be."""
    found = re.findall(rf"CPU\S* {buffer} buffer size = +([\d.]+) MiB", log)
    return sum(map(float, found)), 0.005 * len(found) + 0.0001


def compare(name, flags, folder):
    """(weights, caches) as pairs of what the server said and what gpumod computed, each with the rounding allowed."""
    model = pathlib.Path(folder) / f"{name}.gguf"
    if not model.exists():
        subprocess.run(
            [sys.executable, SUPPORT / "make_gguf.py", "arch", model, "--like", name, "--ctx", "32768"], check=True
        )
    theirs, ours = FLAGS[flags]
    log = load_log(model, ["-c", "16384", *theirs], ARCHITECTURES[name].get("embeddings", False))
    command = [GPUMOD, "model", "inspect", model, "--json", "--context", "16384", "--gpu-layers", "0", *ours]
    vram = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["vram"]
    weights = (*said(log, "model"), vram["host"]["weights"] / MIB)
    kv, kv_rounding = said(log, "KV")
    state, state_rounding = said(log, "RS")
    return weights, (kv + state, kv_rounding + state_rounding, vram["host"]["kv"] / MIB)


@needs_llama
class Estimates(unittest.TestCase):
    def test_caches_and_weights_are_those_of_the_server(self):
        with tempfile.TemporaryDirectory() as folder:
            for name in ARCHITECTURES:
                for flags in FLAGS:
                    with self.subTest(name, flags=flags):
                        weights, caches = compare(name, flags, folder)
                        self.assertAlmostEqual(caches[0], caches[2], delta=caches[1])
                        # On the CPU some architectures keep a copy of the token embeddings for their output.
                        copies = [0, EMBEDDINGS] if name in COPIED else [0]
                        differences = [abs(weights[0] - weights[2] - copy) for copy in copies]
                        self.assertLessEqual(min(differences), weights[1], f"{weights[0]} and {weights[2]} MiB")


def table():
    print("| architecture | like | caches: llama-server | gpumod | weights: llama-server | gpumod |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, shape in ARCHITECTURES.items():
            weights, caches = compare(name, "default", folder)
            print(
                f"| {shape['architecture']} | {name} | {caches[0]:.2f} MiB | {caches[2]:.2f} MiB "
                f"| {weights[0]:.2f} MiB | {weights[2]:.2f} MiB |"
            )


if __name__ == "__main__":
    if "--table" in sys.argv:
        table()
    else:
        unittest.main(verbosity=2)
