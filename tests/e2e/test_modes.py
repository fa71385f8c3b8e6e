"""The main job: modes switch, answer, and leave nothing behind. Real units, a real llama-server."""
import unittest

from harness import MANAGER, MODELS, Case, alive, chat, free_port, listens, needs_llama, needs_systemd, post, until
import os
import pathlib
import subprocess
import urllib.error


@needs_llama
class RouterModes(Case):
    """code and nemotron are two models on one router and one port."""

    def setUp(self):
        super().setUp()
        self.port = free_port()
        for name in ("coder", "nemotron"):
            self.write(f"services/{name}.yaml", f"""
                engine: llamacpp
                router: llama
                port: {self.port}
                models_dir: {MODELS}
                model: {name}
                """)
        self.mode("blank")
        self.mode("code", "coder")
        self.mode("nemotron", "nemotron")

    def test_code_and_nemotron_take_turns_on_one_port(self):
        first = self.switch("code")
        self.assertEqual((first["from"], first["to"], first["result"]), (None, "code", "committed"))
        self.assertEqual(chat(self.port, "coder")["content"], "I am the coder and I write code.")
        router = self.services()["coder"]["pid"]

        second = self.switch("nemotron")
        self.assertEqual((second["from"], second["to"], second["result"]), ("code", "nemotron", "committed"))
        self.assertEqual([(step["service"], step["action"]) for step in second["steps"]],
                         [("coder", "unload"), ("nemotron", "load")])
        message = chat(self.port, "nemotron")
        self.assertEqual(message["content"].strip(), "I am nemotron at your service.")
        self.assertEqual(message["reasoning_content"].strip(), "The user greets me.")
        self.assertEqual(self.services()["nemotron"]["pid"], router, "one router serves both")
        self.assertEqual(self.state_of("coder"), "unloaded")

        third = self.switch("code")
        self.assertEqual(third["result"], "committed")
        self.assertEqual(chat(self.port, "coder")["content"], "I am the coder and I write code.")

        last = self.switch("blank")
        self.assertEqual(last["result"], "committed")
        self.assertFalse(listens(self.port), "nothing may be left on the port")
        self.assertFalse(alive(router))
        self.assertEqual({line["state"] for line in self.services().values()}, {"stopped"})

    def test_switching_to_the_same_mode_repairs_a_dead_service(self):
        self.switch("code")
        self.assertEqual(self.switch("code")["result"], "unchanged")
        pid = self.services()["coder"]["pid"]
        os.kill(pid, 9)
        until(lambda: not alive(pid), what="the router's death")
        again = self.switch("code")
        self.assertEqual(again["result"], "committed")
        self.assertEqual(chat(self.port, "coder")["content"], "I am the coder and I write code.")

    def test_a_model_unloaded_behind_our_back_is_loaded_again(self):
        self.switch("code")
        post(self.port, "/models/unload", {"model": "coder"})
        until(lambda: self.state_of("coder") == "unloaded", what="the unload")
        self.assertEqual([line["service"] for line in self.status()["differences"]], ["coder"])
        again = self.switch("code")
        self.assertEqual([(step["service"], step["action"]) for step in again["steps"]], [("coder", "load")])
        self.assertEqual(chat(self.port, "coder")["content"], "I am the coder and I write code.")

    def test_a_broken_model_brings_the_previous_one_back(self):
        self.write("services/broken.yaml", f"""
            engine: llamacpp
            router: llama
            port: {self.port}
            models_dir: {MODELS}
            model: broken
            """)
        self.mode("bad", "broken")
        self.switch("code")
        run = self.gpumod("mode", "switch", "bad", "--json")
        self.assertEqual(run.code, 1, run)
        self.assertEqual(run.json["switch"]["result"], "rolled_back")
        self.assertIn("broken", run.json["error"]["message"])
        self.assertEqual(chat(self.port, "coder")["content"], "I am the coder and I write code.")
        self.assertEqual(self.ok("mode", "status", "--json").json["mode"], "code")

    def test_a_service_sleeps_and_wakes(self):
        self.switch("code")
        self.ok("service", "sleep", "coder")
        self.assertEqual(self.state_of("coder"), "unloaded")
        self.assertTrue(listens(self.port), "the router stays")
        self.ok("service", "wake", "coder")
        self.assertEqual(self.state_of("coder"), "running")
        self.assertEqual(chat(self.port, "coder")["content"], "I am the coder and I write code.")


@needs_llama
class SingleModels(Case):
    def test_a_chat_and_an_embedding_service_in_one_mode(self):
        chat_port, embed_port = free_port(), free_port()
        self.write("services/chat.yaml", f"""
            engine: llamacpp
            port: {chat_port}
            model: {MODELS}/single.gguf
            context_size: 256
            """)
        self.write("services/embed.yaml", f"""
            engine: llamacpp
            port: {embed_port}
            model: {MODELS}/embed.gguf
            embeddings: true
            probe: {{kind: embedding, dimensions: 64}}
            """)
        self.mode("rag", "chat", "embed")
        result = self.switch("rag")
        notes = {step["service"]: step.get("note", "") for step in result["steps"]}
        self.assertIn("64 dimensions", notes["embed"])
        self.assertEqual(chat(chat_port, "single")["content"], "A single model says good evening.")
        vector = post(embed_port, "/v1/embeddings", {"model": "embed", "input": "hello"})["data"][0]["embedding"]
        self.assertEqual(len(vector), 64)
        self.assertEqual(self.status()["differences"], [])

    def test_an_architecture_that_this_llama_server_does_not_know_is_refused(self):
        model = self.root / "new.gguf"
        model.write_bytes((pathlib.Path(MODELS) / "single.gguf").read_bytes().replace(b"llama", b"lluma"))
        self.write("services/new.yaml", f"engine: llamacpp\nport: {free_port()}\nmodel: {model}\n")
        self.mode("new", "new")
        run = self.gpumod("mode", "switch", "new", "--json")
        self.assertEqual(run.code, 3, run)
        self.assertIn("does not know the architecture lluma of its model", run.json["error"]["message"])
        self.assertEqual(self.state_of("new"), "stopped")

    def test_a_server_that_asks_for_a_key_is_asked_with_it(self):
        port = free_port()
        self.write("services/chat.yaml", f"""
            engine: llamacpp
            port: {port}
            model: {MODELS}/single.gguf
            context_size: 256
            env_file: chat.env
            """)
        self.write("chat.env", "LLAMA_API_KEY=only-for-friends\n")
        self.mode("chat", "chat")
        self.assertEqual(self.switch("chat")["result"], "committed")
        with self.assertRaises(urllib.error.HTTPError) as refused:
            chat(port, "single")
        self.assertEqual(refused.exception.code, 401)
        self.assertEqual(self.status()["differences"], [])
        self.assertNotIn("only-for-friends", self.ok("service", "show", "chat").out)

    def test_an_address_of_another_machine_is_refused(self):
        self.write("services/chat.yaml", f"""
            engine: llamacpp
            port: {free_port()}
            host: 192.0.2.7
            model: {MODELS}/single.gguf
            """)
        self.mode("chat", "chat")
        run = self.gpumod("mode", "switch", "chat", "--json")
        self.assertEqual(run.code, 3, run)
        self.assertIn("192.0.2.7 is no address of this machine", run.json["error"]["message"])

    def test_a_probe_that_expects_other_dimensions_fails_the_switch(self):
        self.write("services/embed.yaml", f"""
            engine: llamacpp
            port: {free_port()}
            model: {MODELS}/embed.gguf
            embeddings: true
            probe: {{kind: embedding, dimensions: 2048}}
            """)
        self.mode("rag", "embed")
        run = self.gpumod("mode", "switch", "rag", "--json")
        self.assertEqual(run.code, 1, run)
        self.assertIn("64", run.json["error"]["message"])
        self.assertEqual(self.state_of("embed"), "stopped")


@needs_systemd
class AdoptedUnits(Case):
    """People's own units keep their files and their names."""

    UNIT = "glm-code-e2e.service"

    def setUp(self):
        super().setUp()
        self.port = free_port()
        self.file = pathlib.Path(os.environ["HOME"]) / ".config/systemd/user" / self.UNIT
        self.file.parent.mkdir(parents=True, exist_ok=True)
        toy = pathlib.Path(__file__).resolve().parent / "support/toy_server.py"
        self.text = f"""[Unit]\nDescription=mine\n[Service]\nExecStart=/usr/bin/python3 {toy} --port {self.port}\nRestart=on-failure\nRestartSec=30\n"""
        self.file.write_text(self.text)
        subprocess.run(["systemctl", "--user", "daemon-reload"], check=True)
        self.addCleanup(lambda: (subprocess.run(["systemctl", "--user", "stop", self.UNIT], check=False), self.file.unlink()))
        self.write("services/glm-code.yaml", f"""
            engine: command
            unit: {self.UNIT}
            port: {self.port}
            check: /health
            vram: 0
            """)
        self.toy("other", free_port())
        self.mode("blank")
        self.mode("code", "glm-code")
        self.mode("rag", "other")

    def state(self):
        return subprocess.run(["systemctl", "--user", "is-active", self.UNIT], text=True, capture_output=True).stdout.strip()

    def test_one_that_was_running_before_is_seen_kept_and_stopped(self):
        subprocess.run(["systemctl", "--user", "start", self.UNIT], check=True)
        until(lambda: listens(self.port), what="their unit")
        self.assertEqual(self.state_of("glm-code"), "running")
        self.assertEqual(self.switch("code")["result"], "unchanged")
        self.switch("rag")
        self.assertIn(self.state(), ("inactive", "failed"))
        self.assertFalse(listens(self.port))
        self.switch("code")
        self.assertEqual(self.state(), "active")
        self.assertEqual(self.file.read_text(), self.text, "people's unit files are never changed")

    def test_a_unit_of_that_name_that_was_not_adopted_is_refused(self):
        self.write("services/glm-code-e2e.yaml", f"""
            engine: command
            port: {free_port()}
            cmd: [/usr/bin/python3, -m, http.server, "${{PORT}}"]
            vram: 0
            """)
        run = self.gpumod("service", "start", "glm-code-e2e", "--json")
        self.assertEqual(run.code, 3, run)
        self.assertIn(f"unit: {self.UNIT}", run.json["error"]["hint"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
