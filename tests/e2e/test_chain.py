"""The chain blank → code → rag → code → nemotron → blank, on a simulated GPU: with the real unit manager, the
real gpumod, and engines that are processes of their own. And what a GPU does to such a chain on a bad day."""
import json
import os
import pathlib
import signal
import subprocess
import unittest

from harness import GPUMOD, MANAGER, SIM, Case, alive, free_port, get, kill, listens, post, until

BUILD = pathlib.Path(GPUMOD).resolve().parent.parent
NVML = BUILD / "lib/libgpumod-sim-nvml.so"
MIB = 2**20
CODER, NEMOTRON = "Qwen3-Coder-30B-A3B-Instruct-Q4_K_M", "Nemotron-3-Nano-30B-A3B-Q4_K_M"
SPEED = 20


class SimulatedGpu(Case):
    """A 24 564 MiB GPU and three services of which no two fit together."""

    def setUp(self):
        super().setUp()
        self.socket = self.root / "gpu.sock"
        self.broker = self.simulate("broker", "--socket", self.socket, "--gpu", "NVIDIA GeForce RTX 4090=24564MiB",
                                    "--reserved", "15MiB", "--driver-version", "580.65.06")
        self.env.update(GPUMOD_NVML_LIBRARY=str(NVML), GPUMOD_SIM_GPU=str(self.socket), GPUMOD_SIM_SPEED=str(SPEED))
        (self.root / "bin").mkdir()
        for engine in ("vllm", "llama-server"):
            (self.root / "bin" / engine).symlink_to(SIM)
        env = f"{{GPUMOD_SIM_GPU: {self.socket}, GPUMOD_SIM_SPEED: \"{SPEED}\"}}"
        self.write("gpumod.yaml", f"""
            engines:
              vllm:
                binary: {self.root}/bin/vllm
                env: {env}
              llamacpp:
                binary: {self.root}/bin/llama-server
                env: {env}
            """)
        self.router, self.embedding = free_port(), free_port()
        self.models = self.root / "models"
        self.models.mkdir()
        self.model(CODER, "weights=17699MiB", "kv-per-1k=136MiB", "compute=463MiB", "load=4s", "answer=I write code.")
        self.model(NEMOTRON, "weights=20400MiB", "kv-per-1k=38MiB", "compute=438MiB", "load=5s", "think=Two and two.",
                   "answer=Four.")
        for service, model, mib in (("qwen3-coder", CODER, 22514), ("nemotron-3-nano", NEMOTRON, 22054)):
            self.write(f"services/{service}.yaml", f"""
                engine: llamacpp
                router: llama
                port: {self.router}
                models_dir: {self.models}
                model: {model}
                vram: {mib} MiB
                context_size: 32768
                gpu_layers: 99
                stop_timeout: 3s
                """)
        self.vllm()
        self.mode("blank")
        self.mode("code", "qwen3-coder")
        self.mode("rag", "vllm-embedding")
        self.mode("nemotron", "nemotron-3-nano")

    def simulate(self, *words, **env):
        return super().simulate(*words, GPUMOD_SIM_GPU=str(self.root / "gpu.sock"), GPUMOD_SIM_SPEED=str(SPEED), **env)

    def model(self, name, *lines):
        (self.models / f"{name}.gguf").write_bytes(b"GGUF\x03\0\0\0" + bytes(16))
        (self.models / f"{name}.sim").write_text("\n".join(lines) + "\n")

    def vllm(self, *options):
        given = ";".join(("weights=3800MiB", "load=12s", "profile=6s", "graphs=4s", "dims=2048", *options))
        folder = self.root / "models/embedding"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text("{}")
        self.write("services/vllm-embedding.yaml", f"""
            engine: vllm
            port: {self.embedding}
            model: {{path: {folder}, served_name: embedder}}
            runner: pooling
            gpu_memory_utilization: 0.22
            max_model_len: 8192
            sleep: l1
            startup_timeout: 120s
            stop_timeout: 3s
            env: {{GPUMOD_SIM_OPTIONS: "{given}"}}
            """)

    def ask_gpu(self, line):
        import socket
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.socket))
            connection.sendall(line.encode() + b"\n")
            answer = b""
            while not answer.endswith(b"\n"):
                answer += connection.recv(65536)
        return answer.decode().strip()

    def holders(self):
        return json.loads(self.ask_gpu("state"))["gpus"][0]["holders"]

    def held(self, command):
        return sum(holder["bytes"] for holder in self.holders() if holder["command"] == command)

    def step(self, switch, action):
        return next(step for step in switch["steps"] if step["action"] == action)


class SimulatedChain(SimulatedGpu):
    def test_the_chain(self):
        vram = {}
        for mode in ("code", "rag", "code", "nemotron"):
            switch = self.switch(mode, timeout=120)
            self.assertEqual(switch["result"], "committed", switch)
            vram[mode] = round(switch["vram"]["after"] / MIB)
            status = self.status()
            self.assertEqual(status["differences"], [])
            kinds = {process["holder"] for process in status["gpus"][0]["processes"]}
            self.assertEqual(kinds, {"managed"}, status["gpus"])
            if mode == "rag":
                answer = post(self.embedding, "/v1/embeddings", {"model": "embedder", "input": "hello"})
                self.assertEqual(len(answer["data"][0]["embedding"]), 2048)
                self.assertFalse(listens(self.router), "the router has gone with its mode")
            else:
                name, says = (CODER, "I write code.") if mode == "code" else (NEMOTRON, "Four.")
                answer = post(self.router, "/v1/chat/completions",
                              {"model": name, "max_tokens": 64, "messages": [{"role": "user", "content": "2+2?"}]})
                self.assertEqual(answer["choices"][0]["message"]["content"].strip(), says)
        self.assertEqual((vram["code"], vram["nemotron"]), (22529, 22069))
        switch = self.switch("blank")
        self.assertEqual(round(switch["vram"]["after"] / MIB), 15)
        self.assertEqual(self.holders(), [])
        self.assertEqual(self.status()["orphans"], [])
        if MANAGER == "systemd":
            units = subprocess.run(["systemctl", "--user", "list-units", "--plain", "--no-legend", "gpumod-*"],
                                   capture_output=True, text=True, env=self.env, check=True).stdout
            self.assertEqual(units, "")

    def test_an_engine_that_outlives_its_server_is_found_and_ended(self):
        self.vllm("fault=engine-survives")
        self.switch("rag", timeout=120)
        server = self.services()["vllm-embedding"]["pid"]
        kill(server)
        until(lambda: not listens(self.embedding), 10, "the end of the server")
        self.assertGreater(self.held("VLLM::EngineCor"), 5000 * MIB, "the engine keeps its memory")
        switch = self.switch("code", timeout=120)
        self.assertEqual(switch["result"], "committed", switch)
        self.assertEqual(self.held("VLLM::EngineCor"), 0)


class SimulatedTroubles(SimulatedGpu):
    def test_memory_that_comes_back_late_is_waited_for(self):
        self.switch("code", timeout=120)
        self.ask_gpu("curve 60s 0s listed")
        switch = self.switch("rag", timeout=120)
        self.assertGreater(self.step(switch, "stop")["seconds"], 60 / SPEED - 0.5)
        self.assertEqual(self.step(switch, "start")["attempts"], 1)

    def test_memory_that_still_comes_back_is_not_started_into(self):
        """What once cost 181 s: a vLLM that measures while the driver gives back the memory of who ran before."""
        self.switch("code", timeout=120)
        self.ask_gpu("curve 0s 80s unlisted")
        switch = self.switch("rag", timeout=120)
        self.assertEqual(self.step(switch, "start")["attempts"], 1, switch)
        self.assertGreater(switch["seconds"], 80 / SPEED - 0.5)

    def test_an_abort_while_profiling_is_tried_again(self):
        self.simulate("desktop", "--as", "game", "--holds", "8GiB", "--until-label", "profiling")
        switch = self.switch("rag", timeout=120)
        start = self.step(switch, "start")
        self.assertEqual(start["attempts"], 2)
        self.assertIn("another process freed memory", start["earlier"][0])

    def test_what_cannot_pass_is_not_tried_again(self):
        self.switch("code", timeout=120)
        self.vllm("fault=model-error")
        run = self.gpumod("mode", "switch", "rag", "--json", timeout=120)
        self.assertEqual(run.code, 1, run)
        self.assertEqual(run.json["switch"]["result"], "rolled_back")
        self.assertEqual(self.step(run.json["switch"], "start")["attempts"], 1)
        self.assertIn("tokenizer", json.dumps(run.json["error"]), run)
        self.assertEqual(self.state_of("qwen3-coder"), "running")
        self.assertEqual(self.held("VLLM::EngineCor"), 0)

    def test_a_restless_neighbour_neither_stalls_nor_fails_a_switch(self):
        self.simulate("desktop", "--as", "firefox", "--holds", "400MiB", "--noise", "300MiB")
        for mode in ("code", "rag", "blank"):
            self.assertEqual(self.switch(mode, timeout=120)["result"], "committed")
        foreign = [process for process in self.status()["gpus"][0]["processes"] if process["holder"] == "foreign"]
        self.assertEqual([process["command"] for process in foreign], ["firefox"])

    def test_who_took_the_room_is_named_and_left_alone(self):
        self.switch("rag", timeout=120)
        grabber = self.simulate("desktop", "--as", "blender", "--grab", "8GiB", "--when-free", "20GiB")
        run = self.gpumod("mode", "switch", "code", "--json", timeout=120)
        self.assertEqual(run.code, 1, run)
        self.assertEqual(run.json["switch"]["result"], "rolled_back")
        self.assertIn(f"pid {grabber.pid} (blender", run.json["error"]["message"])
        self.assertIn("8192 MiB", run.json["error"]["message"])
        self.assertEqual(self.state_of("vllm-embedding"), "running")
        self.assertTrue(alive(grabber.pid))
        # Before anything is touched it is a refusal, and names the same process.
        run = self.gpumod("mode", "switch", "code", "--json", timeout=60)
        self.assertEqual(run.code, 3, run)
        self.assertIn(f"pid {grabber.pid}", json.dumps(run.json["error"]))

    def test_a_sleep_that_gives_nothing_back_is_not_believed(self):
        self.vllm("residual1=4800MiB")
        self.switch("rag", timeout=120)
        run = self.gpumod("service", "sleep", "vllm-embedding", "--json", timeout=120)
        self.assertEqual(run.code, 1, run)
        self.assertIn("still holds 4800 MiB", run.json["error"]["message"])
        self.assertEqual(self.state_of("vllm-embedding"), "running")
        self.assertEqual(get(self.embedding, "/is_sleeping"), '{"is_sleeping":false}')

    def test_sleep_and_wake(self):
        self.switch("rag", timeout=120)
        before = self.held("VLLM::EngineCor")
        self.ok("service", "sleep", "vllm-embedding", timeout=60)
        self.assertEqual(self.state_of("vllm-embedding"), "sleeping1")
        self.assertLess(self.held("VLLM::EngineCor"), 1200 * MIB)
        self.ok("service", "wake", "vllm-embedding", timeout=60)
        self.assertEqual(self.held("VLLM::EngineCor"), before)

    def test_without_its_gpu_everything_can_be_stopped_and_nothing_started(self):
        self.switch("code", timeout=120)
        self.broker.send_signal(signal.SIGKILL)
        self.broker.wait()
        run = self.gpumod("mode", "switch", "rag", "--json", timeout=60)
        self.assertEqual(run.code, 7, run)
        run = self.ok("mode", "switch", "blank", "--json", timeout=60)
        self.assertEqual(run.json["switch"]["result"], "committed")
        self.assertFalse(listens(self.router))


if __name__ == "__main__":
    unittest.main()
