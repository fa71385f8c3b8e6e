"""What is predicted for the next run of a service, from one run before, against what the GPU then shows.

The GPU is simulated, and it is the GPU that is asked: every 10 ms, while the second switch runs. Something else, that was
not there at the first run, holds memory meanwhile. Prints a row of docs/measurements.md for each service.
"""
import os
import pathlib
import statistics
import sys
import threading
import time

here = pathlib.Path(__file__).resolve().parent
os.environ.setdefault("GPUMOD_E2E_MANAGER", "local")
sys.path.insert(0, str(here.parent / "e2e"))

from harness import free_port  # noqa: E402
from test_chain import MIB, SimulatedGpu  # noqa: E402

ROUNDS = 3


class Learned(SimulatedGpu):
    def runTest(self):
        self.modes = {"qwen3-coder": "code", "nemotron-3-nano": "nemotron", "vllm-embedding": "rag"}
        for model, context in (("dense-8k", 8192), ("dense-64k", 65536)):
            self.model(model, "weights=8600MiB", "kv-per-1k=160MiB", "compute=320MiB", "load=3s", f"context={context}")
            self.write(f"services/{model}.yaml", f"""
                engine: llamacpp
                port: {free_port()}
                model: {self.models}/{model}.gguf
                context_size: {context}
                gpu_layers: 99
                vram: 20000
                stop_timeout: 3s
                """)
            self.mode(model, model)
            self.modes[model] = model
        for mode in self.modes.values():
            self.switch(mode, timeout=120)
        self.switch("blank")
        self.simulate("desktop", "--as", "browser", "--holds", "400MiB")
        print("| service | predicted peak | peak of the next run | off by | predicted s | took s (median of 3) |")
        print("|---|---|---|---|---|---|")
        for service, mode in self.modes.items():
            self.row(service, mode)

    def row(self, service, mode):
        plan = self.ok("mode", "switch", mode, "--dry-run", "--json").json["plan"]
        # Of one run only: what later rounds teach is not asked again.
        measured = self.ok("service", "show", service, "--json").json["service"]["memory"]["measured"][0]
        peaks, took = [], []
        for _ in range(ROUNDS):
            peak, seconds = self.watched_switch(mode)
            peaks.append(peak)
            took.append(seconds)
            self.switch("blank")
        peak = max(peaks)
        print(f"| {service} | {measured['peak'] / MIB:.0f} MiB | {peak / MIB:.0f} MiB | "
              f"{(measured['peak'] - peak) / peak:+.1%} | {plan['seconds']:.2f} | {statistics.median(took):.2f} |")

    def watched_switch(self, mode):
        """(the most that one process other than the browser held, seconds of the switch)."""
        done, peak = threading.Event(), 0

        def watch():
            nonlocal peak
            while not done.wait(0.01):
                peak = max([peak, *(h["bytes"] for h in self.holders() if h["command"] != "browser")])

        watcher = threading.Thread(target=watch)
        watcher.start()
        began = time.monotonic()
        try:
            self.switch(mode, timeout=120)
        finally:
            done.set()
            watcher.join()
        return peak, time.monotonic() - began


if __name__ == "__main__":
    import unittest
    result = unittest.TextTestRunner(verbosity=0).run(Learned())
    sys.exit(not result.wasSuccessful())
