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

    def test_what_is_there_is_never_changed(self):
        self.ok("init", "--yes", "--llama-server", LLAMA)
        mine = self.config / "services/coder.yaml"
        mine.write_text(mine.read_text() + "# mine\n")
        again = self.ok("init", "--yes", "--llama-server", LLAMA, "--json").json
        self.assertNotIn(str(mine), again["written"])
        self.assertTrue(mine.read_text().endswith("# mine\n"))


if __name__ == "__main__":
    unittest.main(verbosity=2)
