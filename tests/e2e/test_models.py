"""The registry of models from the outside: a folder of models, a fake Hugging Face, and a model that is missing."""
import os
import pathlib
import shutil
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "support"))

from fake_hub import FakeHub, Storage  # noqa: E402
from harness import LLAMA, MODELS, Case, free_port, needs_llama  # noqa: E402

NAME = "Org/Tiny-GGUF"
SECRET = "hf_thisisasecret"


@needs_llama
class Registry(Case):
    def setUp(self):
        super().setUp()
        self.models = self.root / "models"
        (self.models / "vision").mkdir(parents=True)
        for name in ("coder", "embed"):
            shutil.copy(MODELS / f"{name}.gguf", self.models)
        shutil.copy(MODELS / "single.gguf", self.models / "vision/vision-Q4.gguf")
        (self.models / "vision/mmproj-vision.gguf").write_bytes(b"x")
        (self.models / "broken.gguf").write_bytes(b"GGUF and no more")
        self.env["HF_HUB_CACHE"] = str(self.root / "hub")

    def listed(self):
        return {model["id"]: model for model in self.ok("model", "list", "--json").json["models"]}

    def test_a_folder_is_scanned_registered_listed_and_forgotten(self):
        found = self.ok("model", "scan", self.models, "--json").json
        self.assertEqual({model["id"] for model in found["models"]}, {"coder", "embed", "vision-Q4"})
        self.assertEqual([pathlib.Path(each["path"]).name for each in found["left_out"]], ["broken.gguf"])
        self.assertEqual(self.listed(), {})

        text = self.ok("model", "scan", self.models, "--register").out
        self.assertIn("Registered: ", text)
        self.assertIn("broken.gguf", text)
        listed = self.listed()
        self.assertEqual(set(listed), {"coder", "embed", "vision-Q4"})
        self.assertTrue(all(model["registered"] and model["bytes"] > 0 for model in listed.values()), listed)
        self.assertEqual(listed["vision-Q4"]["files"], 2, "the projector belongs to it")

        removed = self.ok("model", "remove", "coder")
        self.assertIn("files stay", removed.out)
        self.assertTrue((self.models / "coder.gguf").exists())
        self.assertNotIn("coder", self.listed())
        again = self.gpumod("model", "remove", "coder", "--json")
        self.assertEqual(again.code, 4)
        self.assertEqual(again.json["error"]["code"], "not_found")

    def test_a_model_that_went_is_said_by_the_list_and_refused_before_anything_stops(self):
        going, staying = free_port(), free_port()
        self.write("services/coder.yaml", f"""
            id: coder
            engine: llamacpp
            port: {going}
            vram: 0
            model: {{path: {self.models}/coder.gguf}}
            """)
        self.toy("stays", staying)
        self.mode("toys", "stays")
        self.mode("code", "coder")
        self.switch("toys")
        self.assertEqual(self.listed()["coder"]["services"], ["coder"])
        pid = self.services()["stays"]["pid"]

        os.remove(self.models / "coder.gguf")
        os.symlink("nowhere", self.models / "coder.gguf")
        self.assertIn("leads nowhere", self.listed()["coder"]["missing"][0])
        refused = self.gpumod("mode", "switch", "code", "--json")
        self.assertEqual(refused.code, 3, refused)
        self.assertIn("coder.gguf is a link that leads nowhere", refused.json["error"]["message"])
        self.assertEqual(self.services()["stays"]["pid"], pid, "nothing was stopped for it")
        os.remove(self.models / "coder.gguf")
        shutil.copy(self.models / "broken.gguf", self.models / "coder.gguf")
        dry = self.gpumod("mode", "switch", "code", "--dry-run", "--json")
        self.assertEqual(dry.code, 3, dry)
        self.assertIn("at byte", dry.json["error"]["message"])
        self.assertEqual(self.services()["stays"]["pid"], pid)

    def test_what_the_engines_settings_add_is_looked_at_before_anything_stops(self):
        self.write("services/coder.yaml", f"""
            id: coder
            engine: llamacpp
            port: {free_port()}
            vram: 0
            model: {{path: {self.models}/coder.gguf}}
            """)
        self.mode("code", "coder")
        self.write("gpumod.yaml", f"""
            engines:
              llamacpp:
                binary: {LLAMA}
                extra_args: [--lora, "{self.models}/embed.gguf,{self.models}/none.gguf"]
            """)
        dry = self.gpumod("mode", "switch", "code", "--dry-run", "--json")
        self.assertEqual(dry.code, 3, dry)
        self.assertIn("none.gguf is not there", dry.json["error"]["message"])
        self.assertIn("gpumod.yaml", dry.json["error"]["hint"])

    def test_a_model_does_without_a_projector_that_went(self):
        projector = self.models / "vision/mmproj-vision.gguf"
        projector.unlink()
        projector.symlink_to("nowhere")
        self.ok("model", "register", "see", "--path", self.models / "vision/vision-Q4.gguf")
        info = self.ok("model", "info", "see", "--json").json
        self.assertIsNotNone(info["vram"])
        self.assertIn("mmproj-vision.gguf is a link that leads nowhere", info["missing"][0])

    def test_bad_paths_are_named(self):
        os.mkfifo(self.models / "pipe.gguf")
        for path, code in (("pipe.gguf", 6), ("none.gguf", 4), ("broken.gguf", 6)):
            run = self.gpumod("model", "register", "x", "--path", self.models / path, "--json")
            self.assertEqual(run.code, code, run)
            self.assertIn(path, run.json["error"]["message"])
        self.assertEqual(self.gpumod("model", "info", self.models / "pipe.gguf").code, 6)
        self.assertEqual(self.gpumod("model", "scan", self.models / "none").code, 4)
        self.assertEqual(self.gpumod("model", "register", "x").code, 2)


@needs_llama
class Hub(Case):
    def setUp(self):
        super().setUp()
        self.weights = (MODELS / "coder.gguf").read_bytes()
        self.hub = FakeHub(NAME, {"Tiny-Q4_K_M.gguf": self.weights, "Tiny-Q8_0.gguf": self.weights, "README.md": b"hello"})
        self.addCleanup(self.hub.close)
        self.env.update(HF_ENDPOINT=self.hub.url, HF_HUB_CACHE=str(self.root / "hub"), HF_HUB_ETAG_TIMEOUT="1")
        self.env.pop("HF_HUB_OFFLINE", None)
        self.env.pop("HF_TOKEN", None)
        self.env["NO_PROXY"] = "127.0.0.1"

    def test_metadata_is_fetched_kept_and_counts_offline(self):
        several = self.gpumod("model", "info", NAME)
        self.assertEqual(several.code, 2, several)
        self.assertIn("Tiny-Q4_K_M.gguf, Tiny-Q8_0.gguf", several.err)

        info = self.ok("model", "info", f"{NAME}:q4_k_m", "--context", "512", "--json").json
        local = self.ok("model", "inspect", MODELS / "coder.gguf", "--context", "512", "--json").json
        self.assertEqual(info["parameters"], local["parameters"])
        self.assertEqual(info["vram"]["total"], local["vram"]["total"])
        self.assertEqual(info["files"][0]["path"], "Tiny-Q4_K_M.gguf")
        self.assertEqual(len(info["files"][0]["sha256"]), 64)

        registered = self.ok("model", "register", "tiny", "--hf", f"{NAME}:Q4_K_M").out
        self.assertIn(f"{NAME}:Tiny-Q4_K_M.gguf", registered)
        asked = len(self.hub.seen)
        self.ok("model", "info", "tiny", "--offline")
        listed = self.ok("model", "list", "--json").json["models"]
        self.assertEqual(listed[0]["parameters"], local["parameters"])
        self.assertEqual(len(self.hub.seen), asked, "neither asks anybody")

        self.hub.mood = "429"
        later = self.ok("model", "info", "tiny")
        self.assertIn("it asks to wait 17 s; shown is what was known on", later.err)
        self.hub.close()
        gone = self.ok("model", "info", "tiny")
        self.assertIn("shown is what was known on", gone.err)
        shutil.rmtree(self.root / "cache/hub")
        recorded = self.ok("model", "info", "tiny", "--json").json
        self.assertEqual(recorded["parameters"], local["parameters"])
        self.assertIn("shown is what was known when it was registered", " ".join(recorded["notes"]))

    def test_unchanged_listings_are_not_sent_again(self):
        self.ok("model", "info", f"{NAME}:Q8_0")
        self.ok("model", "info", f"{NAME}:Q8_0")
        listings = [headers for path, headers in self.hub.seen if path.startswith("/api/")]
        self.assertNotIn("If-None-Match", listings[0])
        self.assertIn("If-None-Match", listings[1])
        self.assertEqual(sum("/resolve/" in path for path, _ in self.hub.seen), 1, "the header was kept")

    def test_the_token_goes_to_the_hub_alone_and_is_never_shown(self):
        storage = Storage(NAME, self.hub.files)
        self.addCleanup(storage.close)
        self.hub.elsewhere = storage.url
        self.env["HF_TOKEN"] = SECRET
        run = self.ok("model", "register", "tiny", "--hf", f"{NAME}:Q8_0", "--json")
        self.assertTrue(storage.seen, "the file was fetched from where it was redirected to")
        for _, headers in self.hub.seen:
            self.assertEqual(headers.get("Authorization"), f"Bearer {SECRET}")
        for _, headers in storage.seen:
            self.assertNotIn(SECRET, str(headers))
        self.assertNotIn(SECRET, run.out + run.err)
        for path in self.root.rglob("*"):
            if path.is_file():
                self.assertNotIn(SECRET.encode(), path.read_bytes(), path)

    def test_every_misbehaviour_has_its_sentence_and_its_code(self):
        for mood, code, words in (
            ("404", 4, f"Hugging Face has no model {NAME}"),
            ("401", 4, "without a token"),
            ("429", 7, "it asks to wait 17 s"),
            ("hang", 7, "does not answer in time"),
            ("truncate", 7, "breaks off"),
            ("oversize", 1, "answers more than"),
        ):
            with self.subTest(mood):
                self.hub.mood = mood
                run = self.gpumod("model", "register", "x", "--hf", NAME, "--json", timeout=20)
                self.assertEqual(run.code, code, run)
                self.assertIn(words, run.json["error"]["message"])
        self.hub.mood = ""
        self.env["GPUMOD_CURL_LIBRARY"] = "/nonexistent/libcurl.so.4"
        without = self.gpumod("model", "register", "x", "--hf", NAME, "--json")
        self.assertEqual(without.code, 7, without)
        self.assertIn("libcurl cannot be loaded", without.json["error"]["message"])
        del self.env["GPUMOD_CURL_LIBRARY"]
        self.hub.close()
        unreachable = self.gpumod("model", "register", "x", "--hf", NAME, "--json")
        self.assertEqual(unreachable.code, 7, unreachable)
        self.assertIn("cannot be reached", unreachable.json["error"]["message"])
        offline = self.gpumod("model", "register", "x", "--hf", NAME, "--offline", "--json")
        self.assertEqual(offline.code, 4, offline)
        self.assertEqual(self.ok("model", "list", "--json").json["models"], [], "nothing of it was registered")


if __name__ == "__main__":
    unittest.main(verbosity=2)
