"""From an empty home to an answer, with a llama-server in a folder and three GGUF files."""
import shutil
import unittest

from harness import LLAMA, MODELS, Case, chat, needs_llama


@needs_llama
class FirstSteps(Case):
    def setUp(self):
        super().setUp()
        shutil.rmtree(self.config)
        self.home = self.root / "home"
        (self.home / "models").mkdir(parents=True)
        for name in ("coder", "single", "embed"):
            shutil.copy(MODELS / f"{name}.gguf", self.home / "models")
        self.env["HOME"] = str(self.home)

    def test_three_commands_to_an_answer(self):
        before = self.gpumod("init", "--json")
        self.assertEqual(before.json["written"], [], "without consent nothing is written")
        self.assertFalse(self.config.exists())

        written = self.ok("init", "--yes", "--llama-server", LLAMA, "--json").json["written"]
        self.assertTrue(written)
        self.ok("config", "check")
        services = {line["id"]: line for line in self.ok("service", "list", "--json").json["services"]}
        self.assertEqual(set(services), {"coder", "single", "embed"})

        self.assertEqual(self.switch("coder")["result"], "committed")
        self.assertEqual(chat(services["coder"]["port"], "coder")["content"], "I am the coder and I write code.")

    def test_an_engine_that_was_installed_later_is_not_forgotten(self):
        first = self.ok("init", "--yes")
        self.assertNotIn("mode switch coder", first.out, "nothing here could run it")
        program = self.home / "llama.cpp/build/bin/llama-server"
        program.parent.mkdir(parents=True)
        program.symlink_to(LLAMA)
        again = self.ok("init", "--yes").out
        lines = f"engines:\n  llamacpp:\n    binary: {program}\n"
        self.assertIn(lines, again)
        self.assertNotIn("nothing new to write", again)
        settings = self.config / "gpumod.yaml"
        settings.write_text(settings.read_text() + lines)
        self.ok("config", "check")
        self.assertEqual(self.switch("coder")["result"], "committed")

    def test_a_folder_that_is_not_there_is_no_empty_one(self):
        run = self.gpumod("init", "--yes", "--models", "/nonexistent")
        self.assertEqual(run.code, 4, run)
        self.assertIn("there is no folder /nonexistent", run.err)
        self.assertEqual(self.gpumod("init", "--yes", "--models", "").code, 2)
        self.assertFalse(self.config.exists())

    def test_what_is_there_is_never_changed(self):
        self.ok("init", "--yes", "--llama-server", LLAMA)
        mine = self.config / "services/coder.yaml"
        mine.write_text(mine.read_text() + "# mine\n")
        again = self.ok("init", "--yes", "--llama-server", LLAMA, "--json").json
        self.assertNotIn(str(mine), again["written"])
        self.assertTrue(mine.read_text().endswith("# mine\n"))


if __name__ == "__main__":
    unittest.main(verbosity=2)
