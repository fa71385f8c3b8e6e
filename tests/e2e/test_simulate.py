"""gpumod simulate: a switch is thought through and not made; what it offers instead really fits."""
import os
import re
import subprocess
import sys
import unittest

from harness import SUPPORT, Case, free_port, listens

MIB = 1024 * 1024


class Simulations(Case):
    def gpu(self, total_mib, free_mib):
        facts = self.root / "nvml.txt"
        facts.write_text(f"driver 580.65.06\ngpu GPU-one {total_mib * MIB} {free_mib * MIB} NVIDIA GeForce RTX 4090\n")
        self.env.update(GPUMOD_NVML_LIBRARY=os.environ["GPUMOD_NVML_STANDIN"], GPUMOD_NVML_STANDIN_FILE=str(facts))

    def toy_of(self, name, vram_mib):
        port = free_port()
        self.toy(name, port)
        file = self.config / f"services/{name}.yaml"
        file.write_text(file.read_text().replace("vram: 0", f"vram: {vram_mib}"))
        self.mode(name, name)
        return port

    def refused(self, *words):
        run = self.gpumod("simulate", *words, "--json")
        self.assertEqual(run.code, 3, run)
        self.assertEqual(run.json["error"]["code"], "refused")
        self.assertIs(run.json["simulation"]["fits"], False)
        return run.json

    def assert_untouched(self, mode, port):
        """The switch itself is refused with the same words, and has started nothing."""
        run = self.gpumod("mode", "switch", mode, "--json")
        self.assertEqual(run.code, 3, run)
        self.assertFalse(listens(port))
        self.assertEqual(self.state_of(mode), "stopped")
        return run.json["error"]["message"]

    def test_20512_wanted_and_18068_free(self):
        self.gpu(24564, 18068)
        port = self.toy_of("nemotron", 20000)
        said = self.refused("mode", "nemotron")
        self.assertIn("needs 20000 MiB of VRAM", said["error"]["message"])
        self.assertIn("only 17556 MiB to give (512 MiB a GPU are kept free)", said["error"]["message"])
        self.assertEqual(said["simulation"]["missing"], (20512 - 18068) * MIB)
        self.assertEqual(said["simulation"]["gpus"][0]["lowest"]["free"], (18068 - 20000) * MIB)
        self.assertEqual(self.assert_untouched("nemotron", port), said["error"]["message"])

    def test_30962_wanted_and_714_free(self):
        self.gpu(32607, 714)
        port = self.toy_of("huge", 30962)
        said = self.refused("mode", "huge")
        self.assertIn("needs 30962 MiB of VRAM", said["error"]["message"])
        self.assertIn("only 202 MiB to give", said["error"]["message"])
        self.assertEqual(said["simulation"]["missing"], (30962 + 512 - 714) * MIB)
        self.assertEqual(self.assert_untouched("huge", port), said["error"]["message"])

    def test_what_fits_shows_the_way_there(self):
        self.gpu(24564, 18068)
        self.toy_of("chat", 8000)
        self.toy_of("coder", 9000)
        body = self.ok("simulate", "services", "chat,coder", "--json").json["simulation"]
        self.assertIs(body["fits"], True)
        frees = [moment["gpus"][0]["free"] // MIB for moment in body["timeline"]]
        self.assertEqual((frees[0], min(frees), frees[-1]), (18068, 1068, 1068))
        self.assertEqual(body["claims"], [{"service": "chat", "bytes": 8000 * MIB, "source": "declared"},
                                          {"service": "coder", "bytes": 9000 * MIB, "source": "declared"}])
        self.assertEqual(self.ok("simulate", "mode", "chat", "--add", "coder", "--json").json["simulation"]["fits"], True)
        alone = self.ok("simulate", "services", "chat,coder", "--remove", "coder", "--json").json["simulation"]
        self.assertEqual(alone["services"], ["chat"])
        self.assertEqual(self.state_of("chat"), "stopped")

    def test_every_alternative_with_an_edit_fits_once_it_is_made(self):
        self.make_model()
        keys = self.keys
        # On the larger one a single change is enough, on the smaller one it takes two.
        for size, changes in (2000, 1), (1700, 2):
            gpu = ["--gpu", f"small={size}"]
            self.write_keys(keys)
            said = self.refused("mode", "long", *gpu)["simulation"]
            self.assertEqual(said["claims"][0]["source"], "estimated")
            losses = [offer["loss"] for offer in said["alternatives"]]
            self.assertEqual(losses, sorted(losses))
            self.assertEqual({len(offer["changes"]) for offer in said["alternatives"]}, {changes})
            for offer in said["alternatives"]:
                with self.subTest([change["text"] for change in offer["changes"]], size=size):
                    self.write_keys(keys | dict(change["edit"].split(": ", 1) for change in offer["changes"]))
                    body = self.ok("simulate", "mode", "long", *gpu, "--json").json["simulation"]
                    self.assertIs(body["fits"], True)
                    self.assertGreaterEqual(body["gpus"][0]["lowest"]["free"], 512 * MIB)
                    self.assertEqual(body["gpus"][0]["lowest"]["free"], offer["lowest"][0]["free"], "as it was foreseen")

    def test_another_context_is_asked_for_and_offered_by_name(self):
        self.make_model()
        self.write_keys(self.keys)
        gpu = ["--gpu", "small=2000"]
        run = self.gpumod("simulate", "mode", "long", *gpu)
        self.assertTrue(run.err.startswith("gpumod: "), "what does not fit is said there, the picture is an answer")
        shown = run.out
        tokens = re.search(r"give 'long' (\d+) tokens of context instead of 1048576", shown)[1]
        body = self.ok("simulate", "mode", "long", *gpu, "--context", f"long={tokens}", "--json").json["simulation"]
        self.assertIs(body["fits"], True)
        self.refused("mode", "long", *gpu, "--context", f"long={2 * int(tokens)}")
        self.assertIn("trained with 1048576", self.gpumod("simulate", "mode", "long", *gpu, "--context", "long=2000000").out)

    def test_a_context_that_the_arguments_say_is_neither_set_nor_offered(self):
        self.make_model()
        self.write_keys(self.keys | {"extra_args": '["-c", "1048576"]'})
        gpu = ["--gpu", "small=2000"]
        offers = self.refused("mode", "long", *gpu)["simulation"]["alternatives"]
        kinds = {change["kind"] for offer in offers for change in offer["changes"]}
        self.assertNotIn("context", kinds)
        run = self.gpumod("simulate", "mode", "long", *gpu, "--context", "long=4096", "--json")
        self.assertEqual(run.code, 3, run)
        self.assertIn("say its context themselves", run.json["error"]["message"])

    def test_the_arguments_of_a_vllm_and_its_engine_count(self):
        keys = {"engine": "vllm", "port": free_port(), "model": "org/chat", "gpu_memory_utilization": 0.9}
        self.mode("chat", "chat")

        def claim(**more):
            self.write("services/chat.yaml", "".join(f"{key}: {value}\n" for key, value in (keys | more).items()))
            run = self.gpumod("simulate", "mode", "chat", "--gpu", "mine=10000", "--json")
            return run.json["simulation"]["claims"][0]["bytes"] // MIB

        self.assertEqual(claim(), 9000)
        self.assertEqual(claim(extra_args="[--gpu-memory-utilization, '0.5']"), 5000)
        self.write("gpumod.yaml", "engines:\n  vllm:\n    extra_args: [--gpu-memory-utilization=0.4]\n")
        self.assertEqual(claim(), 4000)
        self.assertEqual(claim(extra_args="[--gpu-memory-utilization, '0.5']"), 5000, "its own stand behind")

    def test_a_vllm_in_parallel_takes_its_share_of_each_gpu(self):
        self.mode("chat", "chat")

        def simulate(arguments, gpus="first=10000,second=10000"):
            self.write("services/chat.yaml", f"""
                engine: vllm
                port: 7071
                model: org/chat
                gpu_memory_utilization: 0.9
                extra_args: {arguments}
                """)
            return self.gpumod("simulate", "mode", "chat", "--gpu", gpus, "--json")

        def free(run):
            return [gpu["lowest"]["free"] // MIB for gpu in run.json["simulation"]["gpus"]]

        self.assertEqual(sorted(free(simulate("[]"))), [600, 9600])  # 400 MiB are the driver's
        for arguments in "[--pipeline-parallel-size=2]", "[-pp, '2']", "[-tp=2]", "[--data_parallel_size, '2']":
            self.assertEqual(free(simulate(arguments)), [600, 600], arguments)
        run = simulate("[-tp, '2', -pp, '2']")
        self.assertEqual((run.code, run.json["error"]["code"]), (3, "refused"), run)
        self.assertEqual(run.json["error"]["message"],
                         "service 'chat' wants 4 GPUs (tensor parallel 2 × pipeline parallel 2), this machine has 2")

    def make_model(self):
        """A mode of one llama-server that asks for a context of a million tokens, and does not shrink itself."""
        model = self.root / "model.gguf"
        make = [sys.executable, str(SUPPORT.parent.parent / "support/make_gguf.py"), "arch", str(model), "--like", "dense",
                "--ctx", "1048576"]
        subprocess.run(make, check=True)
        self.keys = {"engine": "llamacpp", "port": free_port(), "model": model, "context_size": 1048576, "gpu_layers": 99}
        self.mode("long", "long")

    def write_keys(self, keys):
        self.write("services/long.yaml", "".join(f"{key}: {value}\n" for key, value in keys.items()))

    def test_a_service_the_mode_may_do_without(self):
        self.toy_of("chat", 14000)
        self.toy_of("asr", 12000)
        self.mode("talk", "chat", "asr", optional="[asr]")
        offers = self.refused("mode", "talk", "--gpu", "RTX 4090")["simulation"]["alternatives"]
        self.assertEqual([change["kind"] for offer in offers for change in offer["changes"]], ["drop"])
        self.ok("simulate", "mode", "talk", "--gpu", "RTX 4090", "--remove", "asr")
        self.ok("simulate", "mode", "talk", "--gpu", "RTX 4090,RTX 4090")

    def test_without_a_gpu_it_says_what_to_do(self):
        self.toy_of("chat", 14000)
        run = self.gpumod("simulate", "mode", "chat", "--json")
        self.assertEqual(run.code, 7, run)
        self.assertIn("--gpu", run.json["error"]["hint"])
        body = self.ok("simulate", "mode", "chat", "--gpu", "RTX 4090", "--json").json["simulation"]
        self.assertEqual((body["imagined"], body["gpus"][0]["total"]), (True, 24564 * MIB))

    def test_a_model_that_is_missing_is_named_and_what_the_driver_keeps_is_said(self):
        self.write("services/long.yaml", f"engine: llamacpp\nport: {free_port()}\nmodel: /no/such/long.gguf\n")
        self.mode("long", "long")
        notes = self.ok("simulate", "mode", "long", "--gpu", "RTX 4090", "--json").json["simulation"]["notes"]
        self.assertTrue(any("'long'" in note and "/no/such/long.gguf" in note for note in notes), notes)
        self.assertTrue(any("400 MiB count as taken" in note for note in notes), notes)

    def test_a_model_that_will_shrink_itself_is_told_beside_what_it_leaves_free(self):
        self.make_model()
        self.write_keys({key: value for key, value in self.keys.items() if key not in ("context_size", "gpu_layers")})
        notes = self.gpumod("simulate", "mode", "long", "--gpu", "tiny=1GiB", "--json").json["simulation"]["notes"]
        self.assertTrue(any("beside the 1024 MiB that it leaves free" in note for note in notes), notes)

    def test_what_makes_no_sense_is_refused_in_words(self):
        self.toy_of("chat", 14000)
        for words, code, part in [
            (["mode", "nope"], 4, "nope"),
            (["services", "chat,nope"], 4, "nope"),
            (["mode", "chat", "--gpu", "RTX 9999"], 2, "RTX 9999"),
            (["mode", "chat", "--gpu", "mine=lots"], 2, "NAME=SIZE"),
            (["mode", "chat", "--context", "chat"], 2, "SERVICE=TOKENS"),
            (["mode", "chat", "--context", "chat=16384"], 2, "no context that could be set"),
            (["mode", "chat", "--remove", "nope"], 4, "nope"),
        ]:
            with self.subTest(words):
                run = self.gpumod("simulate", *words, "--json")
                self.assertEqual(run.code, code, run)
                self.assertIn(part, run.json["error"]["message"])

    def test_bars_in_ascii_and_narrow(self):
        self.gpu(24564, 18068)
        self.toy_of("chat", 8000)
        env = dict(self.env, LC_ALL="C", COLUMNS="40")
        run = self.gpumod("simulate", "mode", "chat", "--visual", env=env)
        self.assertEqual(run.code, 0, run)
        self.assertTrue(run.out.isascii())
        bars = [line for line in run.out.splitlines() if "#" in line and "ours" not in line]
        self.assertEqual(len(bars), 1, run.out)
        self.assertTrue(all(len(line) <= 40 for line in bars))


if __name__ == "__main__":
    unittest.main(verbosity=2)
