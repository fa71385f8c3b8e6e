"""A quality run over the chain on the simulated GPU, at the engines' own speed, against the sum of what they take.

GPUMOD_BINARY=build/release/bin/gpumod GPUMOD_E2E_MANAGER=local python3 tests/bench/qa.py
"""
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "e2e"))
import test_chain  # noqa: E402

test_chain.SPEED = 1
CHAIN = ("blank", "code", "rag", "code", "nemotron", "blank")
# Simulated seconds: the loads that test_chain.py gives its models; vLLM's boot (its default), load, profile and graphs.
ENGINES = {"code": 4.0, "nemotron": 5.0, "rag": 2.0 + 12.0 + 6.0 + 4.0, "blank": 0.0}


class Measured(test_chain.SimulatedGpu):
    def runTest(self):
        self.switch("blank")
        engines = sum(ENGINES[mode] for mode in CHAIN[1:])
        began = time.monotonic()
        run = self.ok("qa", "run", "--modes", ",".join(CHAIN), "--report", self.root / "reports", "--json", timeout=300)
        took = time.monotonic() - began
        for line in run.json["qa"]["transitions"]:
            print(f"{line['from']} → {line['to']}: {line['seconds']:.2f} s, the engines {ENGINES[line['to']]:.2f} s")
        print(f"qa run: {took:.2f} s, the engines {engines:.2f} s: {(took / engines - 1) * 100:+.1f} %")


if __name__ == "__main__":
    test_chain.unittest.main(argv=[sys.argv[0], "Measured"])
