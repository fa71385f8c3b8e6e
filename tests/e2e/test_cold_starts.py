"""Starts that fail, and say why: the cause as the message, the remedy as the hint, the previous mode running again."""
import os
import pathlib
import shutil
import socket
import subprocess
import time
import unittest

from harness import SUPPORT, Case, free_port, get, needs_systemd

BAD_MODEL = "0.00.023.659 E llama_model_load: error loading model: tensor 'token_embd.weight' not found\n"
SHORT_OF_KV = (
    "INFO 11-20 09:12:40 [gpu_worker.py:298] Available KV cache memory: 2.25 GiB\n"
    "(EngineCore_DP0 pid=812) ERROR 11-20 09:12:44 [core.py:700] EngineCore failed to start.\n"
    "(EngineCore_DP0 pid=812) ERROR 11-20 09:12:44 [core.py:700] Traceback (most recent call last):\n"
    "(EngineCore_DP0 pid=812) ERROR 11-20 09:12:44 [core.py:700] ValueError: To serve at least one request with the "
    "model's max seq len (131072), (24.00 GiB KV cache is needed, which is larger than the available KV cache memory "
    "(2.25 GiB). Based on the available memory, the estimated maximum model length is 12288. Try increasing "
    "`gpu_memory_utilization` or decreasing `max_model_len` when initializing the engine.\n")


class Starts(Case):
    def setUp(self):
        super().setUp()
        self.good = free_port()
        self.toy("good", self.good)
        self.mode("good", "good")

    def program(self, name):
        """The stand-in, under the name of the program that it plays."""
        path = self.root / "bin" / name
        path.parent.mkdir(exist_ok=True)
        shutil.copy(SUPPORT / "failing_server.py", path)
        return path

    def failing(self, program, says, then, **fields):
        """A mode `bad` of one service that starts `program`, says this, and then lives on or exits."""
        words = self.root / "words"
        words.write_text(says)
        lines = ["id: bad", "engine: command", f"port: {free_port()}", "check: /health", "vram: 0",
                 f"cmd: [{self.program(program)}, --port, '${{PORT}}']", f"env: {{SAY: {words}, THEN: '{then}'}}",
                 f"startup_timeout: {fields.pop('startup_timeout', '120s')}", "stop_timeout: 2s"]
        lines += [f"{key}: {value}" for key, value in fields.items()]
        self.write("services/bad.yaml", "\n".join(lines) + "\n")
        self.mode("bad", "bad")

    def fails(self, mode="bad", timeout=60):
        """The error of a switch that is rolled back, its step, and how long it took."""
        self.switch("good")
        began = time.monotonic()
        run = self.gpumod("mode", "switch", mode, "--json", timeout=timeout)
        took = time.monotonic() - began
        self.assertEqual(run.code, 1, run)
        self.assertEqual(run.json["switch"]["result"], "rolled_back", run)
        self.assertEqual(get(self.good, "/health"), '{"status": "ok"}')
        status = self.status()
        self.assertEqual((status["mode"], status["differences"], status["orphans"]), ("good", [], []))
        step = next(step for step in run.json["switch"]["steps"] if step["action"] == "start" and step["service"] == "bad")
        return run.json["error"], step, took


class ColdStarts(Starts):
    def test_a_permanent_failure_ends_the_start_although_its_process_lives_on(self):
        self.failing("vllm", SHORT_OF_KV, "live")
        error, step, took = self.fails()
        self.assertIn("max_model_len 131072 needs 24.00 GiB of KV cache, and 2.25 GiB are left for it", error["message"])
        self.assertEqual(error["hint"], "Lower max_model_len to 12288, or raise gpu_memory_utilization.")
        self.assertIn("core.py:700", step["log"])
        self.assertEqual(step["attempts"], 1, "a configuration does not mend itself")
        self.assertLess(took, 20, "nobody waits for startup_timeout")

    def test_a_model_that_cannot_be_loaded_is_the_message(self):
        self.failing("llama-server", BAD_MODEL, 1)
        error, step, _ = self.fails()
        self.assertIn("it lacks the tensor token_embd.weight", error["message"])
        self.assertEqual((error["hint"], step["attempts"]), ("Download it again.", 1))

    def test_the_first_cause_is_named_with_its_figure(self):
        self.failing("llama-server",
                     "0.02.131 E ggml_backend_cuda_buffer_type_alloc_buffer: allocating 40960.00 MiB on device 0: "
                     "cudaMalloc failed: out of memory\n"
                     "0.02.133 E llama_init_from_model: failed to initialize the context: failed to allocate buffer for kv "
                     "cache\n", "live")
        error, _, _ = self.fails()
        self.assertIn("GPU 0 had no room for 40960.00 MiB", error["message"])

    def test_who_holds_the_port_is_named(self):
        with socket.socket() as stranger:
            stranger.bind(("127.0.0.1", 0))
            stranger.listen()
            port = stranger.getsockname()[1]
            self.failing("llama-server",
                         f"0.00.015 E srv         start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: {port}\n", 1)
            error, step, _ = self.fails()
        self.assertIn(f"the port {port} is held by pid {os.getpid()} (", error["message"])
        self.assertEqual(step["attempts"], 3, "a port may become free: it was tried again")
        self.assertIn("attempt 1", step["earlier"][0])

    def test_a_warning_and_an_unknown_error_do_not_end_a_start(self):
        port = free_port()
        self.toy("grumbles", port, "--complain", "ERROR: vllm: No available memory for the cache blocks", "--ready-after", 0.3)
        self.mode("grumbles", "grumbles")
        self.assertEqual(self.switch("grumbles")["result"], "committed")

    def with_startup_timeout(self, name, timeout):
        file = self.config / f"services/{name}.yaml"
        self.write(f"services/{name}.yaml", file.read_text().replace("startup_timeout: 15s", f"startup_timeout: {timeout}"))

    def test_a_start_that_does_nothing_is_called_stuck_before_its_time_is_over(self):
        self.toy("bad", free_port(), "--ready-after", 3600)
        self.with_startup_timeout("bad", "20s")
        self.mode("bad", "bad")
        error, step, took = self.fails()
        self.assertIn("it did not get ready and is stuck: for 1", error["message"])
        self.assertIn("used no CPU", error["message"])
        self.assertLess(took, 18)
        self.assertEqual(step["attempts"], 1)

    def test_a_start_that_compiles_without_a_word_is_not_stuck_and_gets_more_time(self):
        self.toy("compiles", free_port(), "--compile", 5)
        self.with_startup_timeout("compiles", "3s")
        self.mode("compiles", "compiles")
        began = time.monotonic()
        self.assertEqual(self.switch("compiles")["result"], "committed")
        self.assertGreater(time.monotonic() - began, 5)

    def test_a_virtual_environment_without_its_python_is_refused_before_anything_is_stopped(self):
        venv = self.root / "venv"
        (venv / "bin").mkdir(parents=True)
        (venv / "pyvenv.cfg").write_text("home = /opt/python3.9/bin\n")
        (venv / "bin/python3").symlink_to("/opt/python3.9/bin/python3")
        server = venv / "bin/vllm"
        server.write_text(f"#!{venv}/bin/python3\nprint()\n")
        server.chmod(0o755)
        self.write("services/bad.yaml", f"engine: command\nport: {free_port()}\ncmd: [{server}]\nvram: 0\n")
        self.mode("bad", "bad")
        before = self.switch("good")
        run = self.gpumod("mode", "switch", "bad", "--json")
        self.assertEqual(run.code, 3, run)
        self.assertIn(f"the virtual environment {venv} has lost its Python", run.json["error"]["message"])
        self.assertIn("/opt/python3.9/bin/python3", run.json["error"]["message"])
        self.assertIn("python3 -m venv", run.json["error"]["hint"])
        self.assertEqual(self.state_of("good"), "running")
        self.assertEqual(before["result"], "committed")


@needs_systemd
class AdoptedStarts(Starts):
    """People's own units, with their own restart loops."""

    def adopt(self, section):
        folder = pathlib.Path(os.environ.get("XDG_CONFIG_HOME", os.environ["HOME"] + "/.config")) / "systemd/user"
        folder.mkdir(parents=True, exist_ok=True)
        self.unit = folder / f"e2e-{os.getpid()}-{free_port()}.service"
        self.unit.write_text(f"[Service]\n{section}\n")
        self.addCleanup(self.forget)
        subprocess.run(["systemctl", "--user", "daemon-reload"], check=True)
        self.write("services/bad.yaml", f"engine: llamacpp\nmodel: {self.unit}\nport: {free_port()}\nvram: 0\n"
                                        f"unit: {self.unit.name}\nstartup_timeout: 60s\n")
        self.mode("bad", "bad")

    def forget(self):
        subprocess.run(["systemctl", "--user", "stop", self.unit.name], check=False, capture_output=True)
        self.unit.unlink()
        subprocess.run(["systemctl", "--user", "daemon-reload"], check=True)

    def restarts(self):
        return int(subprocess.run(["systemctl", "--user", "show", "-P", "NRestarts", self.unit.name], check=True, text=True,
                                  capture_output=True).stdout)

    def test_a_unit_that_restarts_itself_is_stopped_at_its_first_classified_failure(self):
        words = self.root / "words"
        words.write_text(BAD_MODEL)
        self.adopt(f"ExecStart={self.program('llama-server')}\nEnvironment=SAY={words} THEN=1\nRestart=always\nRestartSec=100ms")
        error, _, took = self.fails()
        self.assertIn("it lacks the tensor token_embd.weight", error["message"])
        self.assertLess(took, 15)
        state = subprocess.run(["systemctl", "--user", "is-active", self.unit.name], text=True, capture_output=True).stdout
        self.assertIn(state.strip(), ("inactive", "failed"), "its restart loop must not go on")
        before = self.restarts()
        time.sleep(0.5)  # five turns of its loop
        self.assertEqual(self.restarts(), before)

    def test_a_unit_whose_program_has_lost_its_python(self):
        venv = self.root / "venv"
        (venv / "bin").mkdir(parents=True)
        (venv / "pyvenv.cfg").write_text("home = /opt/python3.9/bin\n")
        (venv / "bin/python3").symlink_to("/opt/python3.9/bin/python3")
        server = venv / "bin/vllm"
        server.write_text(f"#!{venv}/bin/python3\nprint()\n")
        server.chmod(0o755)
        self.adopt(f"ExecStart={server}")
        error, _, _ = self.fails()
        self.assertIn(f"the virtual environment {venv} has lost its Python", error["message"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
