"""What gpumod learns from its own switches: memory and seconds, on a simulated GPU with the real unit manager."""
import time
import unittest

from harness import free_port
from test_chain import CODER, MIB, SimulatedGpu

TRUTH = 22514 * MIB  # weights, 32k of cache, compute buffers


class Learning(SimulatedGpu):
    def coder(self, vram="15000 MiB", context=32768):
        self.write("services/qwen3-coder.yaml", f"""
            engine: llamacpp
            router: llama
            port: {self.router}
            models_dir: {self.models}
            model: {CODER}
            {f"vram: {vram}" if vram else ""}
            context_size: {context}
            gpu_layers: 99
            stop_timeout: 3s
            """)

    def memory(self, service):
        return self.ok("service", "show", service, "--json").json["service"]["memory"]

    def claim(self, service):
        claim = self.memory(service)["claims"][0]
        return claim["bytes"], claim["source"]

    def plan(self, mode):
        return self.ok("mode", "switch", mode, "--dry-run", "--json").json["plan"]

    def load_of(self, plan):
        return next(step for step in plan["steps"] if step["action"] == "load")

    def test_the_first_switch_learns_and_the_next_one_uses_it(self):
        self.coder()
        first = self.plan("code")
        self.assertEqual(self.load_of(first)["claim"], {"0": 15000 * MIB})
        self.assertEqual(self.load_of(first)["claim_source"], "declared")
        self.assertIsNone(first["seconds"])
        self.switch("code", timeout=120)
        self.switch("blank")

        predicted = self.plan("code")
        self.assertEqual(self.load_of(predicted)["claim_source"], "measured")
        began = time.monotonic()
        self.switch("code", timeout=120)
        took = time.monotonic() - began
        # Against another witness than the one who measured: what the GPU itself says of the next run.
        held = max(holder["bytes"] for holder in self.holders())
        claim = self.load_of(predicted)["claim"]["0"]
        self.assertLess(abs(claim - held), held * 0.02, "the next run takes what was predicted")
        self.assertLess(abs(held - TRUTH), MIB)
        self.assertGreater(predicted["seconds"], 0.2)
        self.assertLess(predicted["seconds"], took + 1)

    def test_what_is_declared_wrongly_is_said(self):
        self.coder()
        self.assertEqual(self.memory("qwen3-coder")["warnings"], [])
        self.switch("code", timeout=120)
        memory = self.memory("qwen3-coder")
        self.assertEqual(memory["declared"], 15000 * MIB)
        self.assertEqual(round(memory["measured"][0]["peak"] / MIB), 22514)
        self.assertEqual(self.claim("qwen3-coder")[1], "measured")
        self.assertIn("15000 MiB are declared, but it takes 22514 MiB (measured in 1 run)", memory["warnings"][0])
        shown = self.ok("service", "show", "qwen3-coder").out
        for word in ("DECLARED", "ESTIMATED", "MEASURED", "CLAIMED", "22514 MiB", "warning:"):
            self.assertIn(word, shown)

    def test_what_was_measured_refuses_what_cannot_fit(self):
        self.coder()
        self.mode("both", "qwen3-coder", "vllm-embedding")
        self.switch("code", timeout=120)
        self.switch("blank")
        # 15000 and 5405 MiB would fit; 22514 and 5405 do not, and before anything is touched that is known.
        run = self.gpumod("mode", "switch", "both", "--json")
        self.assertEqual(run.code, 3, run)
        self.assertEqual(self.holders(), [])

    def test_a_vllm_claims_its_utilization_whatever_is_beside_it(self):
        file = self.config / "services/vllm-embedding.yaml"
        file.write_text(file.read_text().replace("0.22", "0.9") + "vram: 15000 MiB\n")
        self.switch("rag", timeout=120)
        self.assertEqual(self.claim("vllm-embedding"), (-(-24564 * MIB * 9 // 10), "utilization"))
        self.assertIn("15000 MiB are declared, but it takes 22108 MiB", self.memory("vllm-embedding")["warnings"][0])

    def test_another_context_is_another_run(self):
        self.coder()
        self.switch("code", timeout=120)
        self.assertEqual(self.claim("qwen3-coder")[1], "measured")
        self.coder(context=16384)
        self.assertEqual(self.claim("qwen3-coder"), (15000 * MIB, "declared"))
        self.assertEqual(self.memory("qwen3-coder")["measured"], [])
        self.coder()
        self.assertEqual(self.claim("qwen3-coder")[1], "measured", "it was not forgotten")

    def solo(self):
        """A llama-server that may shrink itself; it would like 14000 MiB."""
        self.model("solo", "weights=12000MiB", "kv-per-1k=400MiB", "compute=400MiB", "load=4s", "context=4096")
        self.write("services/solo.yaml", f"""
            engine: llamacpp
            port: {free_port()}
            model: {self.models}/solo.gguf
            vram: 6000
            stop_timeout: 3s
            """)
        self.mode("solo", "solo")

    def test_a_squeezed_run_is_not_learned(self):
        self.solo()
        game = self.simulate("desktop", "--as", "game", "--holds", "15GiB")
        self.switch("solo", timeout=120)
        held = max(holder["bytes"] for holder in self.holders() if holder["command"] != "game")
        self.assertLess(held, 9000 * MIB, "it was squeezed")
        memory = self.memory("solo")
        self.assertEqual([entry["peak"] for entry in memory["measured"]], [None], "its seconds are known, not its memory")
        self.assertEqual(self.claim("solo"), (6000 * MIB, "declared"))
        game.kill()
        game.wait()
        self.ok("service", "restart", "solo", timeout=120)
        claim, source = self.claim("solo")
        self.assertEqual(source, "measured")
        self.assertGreater(claim, 13000 * MIB)

    def test_what_fails_teaches_nothing(self):
        self.model("small", "weights=4000MiB", "kv-per-1k=100MiB", "compute=200MiB", "load=2s")
        self.write("services/small.yaml", f"""
            engine: llamacpp
            port: {free_port()}
            model: {self.models}/small.gguf
            vram: 6000
            context_size: 4096
            gpu_layers: 99
            stop_timeout: 3s
            """)
        self.mode("both", "small", "vllm-embedding")
        self.mode("small", "small")
        self.vllm("fault=model-error")
        run = self.gpumod("mode", "switch", "both", "--json", timeout=120)
        self.assertEqual(run.code, 1, run)
        came = {(step["service"], step["result"]) for step in run.json["switch"]["steps"]
                if step["action"] == "start"}
        self.assertEqual(came, {("small", "done"), ("vllm-embedding", "failed")})
        # Under the very configuration that was tried: neither of what failed nor of what came up before that.
        self.assertEqual(self.memory("vllm-embedding")["measured"], [])
        self.assertEqual(self.memory("small")["measured"], [])
        self.switch("small")
        self.assertEqual(len(self.memory("small")["measured"]), 1)

    def test_a_sleeper_shows_what_it_keeps(self):
        self.switch("rag", timeout=120)
        self.ok("service", "sleep", "vllm-embedding", timeout=60)
        self.ok("service", "wake", "vllm-embedding", timeout=60)
        measured = self.memory("vllm-embedding")["measured"][0]
        self.assertLess(measured["steady"]["sleeping1"], 1200 * MIB)
        self.assertGreater(measured["steady"]["running"], 5000 * MIB)
        self.assertLessEqual({"start", "ready", "sleep", "wake"}, set(measured["seconds"]))

    def test_it_can_be_forgotten(self):
        self.coder()
        self.switch("code", timeout=120)
        self.assertEqual(self.ok("service", "forget", "qwen3-coder", "--json").json,
                         {"forgotten": {"service": "qwen3-coder", "runs": 1}})
        self.assertEqual(self.claim("qwen3-coder")[1], "declared")
        self.assertIn("Nothing had been measured", self.ok("service", "forget", "qwen3-coder").out)
        run = self.gpumod("service", "forget", "qwen3-codr", "--json")
        self.assertEqual(run.code, 4, run)
        self.assertIn("qwen3-coder", run.json["error"]["hint"])


if __name__ == "__main__":
    unittest.main()
