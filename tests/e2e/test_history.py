"""What switches were like: recorded, listed, shown over their time, and measured again and again."""
import json
import os
import signal
import unittest

from harness import Case, alive, free_port, kill, until
from test_chain import MIB, SimulatedGpu


def step(recording, action, subject):
    return next(line for line in recording["steps"] if (line["action"], line["subject"]) == (action, subject))


class Histories(Case):
    def setUp(self):
        super().setUp()
        self.port = free_port()  # they share it: so one has to go before the other comes
        self.toy("quick", self.port)
        self.toy("slow", self.port, "--ready-after", "1.5")
        for name in ("quick", "slow"):
            self.mode(name, name)

    def shown(self, which="last"):
        return self.ok("history", "show", which, "--json").json

    def listed(self):
        return self.ok("history", "--json").json["switches"]

    def test_every_switch_is_listed_and_can_be_shown(self):
        self.assertEqual(self.listed(), [])
        self.assertEqual(self.ok("history").out, "No switch was made yet.\n")
        self.assertEqual(self.gpumod("history", "show").code, 4)
        self.switch("quick")
        report = self.switch("slow")
        lines = self.listed()
        self.assertEqual([line["what"] for line in lines], ["mode switch slow", "mode switch quick"])
        self.assertEqual([line["result"] for line in lines], ["committed", "committed"])
        self.assertTrue(all(line["recorded"] for line in lines), lines)
        self.assertEqual(lines[0]["id"], report["id"])
        self.assertEqual(len(self.ok("history", "--limit", "1", "--json").json["switches"]), 1)

        answer = self.shown()
        recording = answer["recording"]
        self.assertFalse(recording["partial"])
        self.assertAlmostEqual(recording["seconds"], report["seconds"], places=2)
        start, stop = step(recording, "start", "slow"), step(recording, "stop", "quick")
        for line in (start, stop):
            spans = line["phases"]
            self.assertEqual(spans[0]["from"], line["began"])
            self.assertEqual(spans[-1]["until"], line["ended"])
            for before, after in zip(spans, spans[1:]):
                self.assertEqual(before["until"], after["from"])
        wait = next(wait for wait in recording["waits"] if wait["for"] == "turn")
        self.assertEqual((wait["step"], wait["cause"]), (start["step"], "stop of quick"))
        ready = next(phase for phase in start["phases"] if phase["name"] == "ready")
        self.assertGreater(ready["until"] - ready["from"], 1.3)
        self.assertIn("start of slow", " ".join(answer["summary"]))
        self.assertEqual(self.shown(str(lines[1]["id"]))["recording"]["what"], "mode switch quick")

        screen = self.ok("history", "show").out
        self.assertIn("start slow", screen)
        self.assertIn("getting ready", screen)
        for line in screen.splitlines():
            self.assertLessEqual(len(line), 120, line)

    def test_the_second_time_there_is_something_to_expect(self):
        for mode in ("slow", "quick", "slow", "quick", "slow"):
            self.switch(mode)
        answer = self.shown()
        self.assertGreater(step(answer["recording"], "start", "slow")["predicted_seconds"], 1.0)
        self.assertGreater(answer["recording"]["predicted_seconds"], 1.0)
        self.assertIn("As fast as expected", answer["summary"][0])

    def test_a_failure_has_its_cause_and_the_lines_that_mattered(self):
        self.switch("quick")
        self.toy("broken", self.port, "--complain", "RuntimeError: no such tokenizer", "--exit-at-once", "3")
        self.mode("broken", "broken")
        self.assertEqual(self.gpumod("mode", "switch", "broken").code, 1)
        line = self.listed()[0]
        self.assertEqual(line["result"], "rolled_back")
        self.assertIn("broken", line["cause"])
        recording = self.shown()["recording"]
        failed = step(recording, "start", "broken")
        self.assertEqual(recording["failure"]["step"], failed["step"])
        self.assertIn("RuntimeError: no such tokenizer", failed["troubles"][0]["log"])
        self.assertTrue(step(recording, "start", "quick")["undo"])
        screen = self.ok("history", "show").out
        self.assertIn("rolled back", screen)
        self.assertIn("RuntimeError: no such tokenizer", screen)

    def test_one_under_way_and_one_that_was_cut_off_are_shown_as_far_as_they_are_known(self):
        self.switch("quick")
        self.toy("slow", self.port, "--ready-after", "600", extra="startup_timeout: 900s")
        self.write("services/slow.yaml", (self.config / "services/slow.yaml").read_text().replace("startup_timeout: 15s\n", ""))
        process = self.start_gpumod("mode", "switch", "slow")
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        until(lambda: self.listed()[0]["what"] == "mode switch slow", what="the row of the switch")
        until(lambda: any(line["action"] == "start" for line in self.shown()["recording"]["steps"]), what="its start")
        self.assertEqual(self.listed()[0]["result"], "running")
        answer = self.shown()
        self.assertEqual(answer["recording"]["result"], "running")
        self.assertTrue(answer["recording"]["partial"])
        self.assertIn("under way", answer["note"])
        self.assertIn("under way", self.ok("history", "show").out)

        worker = self.status()["switch"]["pid"]
        kill(worker)
        until(lambda: not alive(worker), what="the end of the worker")
        until(lambda: self.listed()[0]["result"] == "interrupted", what="the kernel's word that nobody holds the lock")
        answer = self.shown()
        self.assertEqual([line["action"] for line in answer["recording"]["steps"]], ["stop", "start"])
        self.assertIn("cut off", answer["note"])
        self.assertIn("interrupted", self.ok("history", "show").out)
        self.switch("quick")
        self.assertEqual([line["result"] for line in self.listed()[:2]], ["committed", "interrupted"])

    def test_a_recording_becomes_a_trace(self):
        self.switch("slow")
        target = self.root / "switch.json"
        self.assertIn(str(target), self.ok("history", "show", "--trace", target).out)
        events = json.loads(target.read_text())["traceEvents"]
        slices = [event for event in events if event["ph"] == "X"]
        self.assertIn("getting ready", [event["name"] for event in slices])
        self.assertTrue(all(event["dur"] >= 0 for event in slices))
        times = [event["ts"] for event in events if event["ph"] != "M"]
        self.assertEqual(times, sorted(times))
        took = self.shown()["recording"]["seconds"] * 1e6
        self.assertLessEqual(max(event["ts"] + event["dur"] for event in slices), took + 1000, "in microseconds")
        self.assertGreater(max(event["ts"] + event["dur"] for event in slices), took / 2)
        around = {}
        for event in slices:  # of a row, each lies within the one before it or apart from it
            open_ends = around.setdefault((event["pid"], event["tid"]), [])
            while open_ends and open_ends[-1] <= event["ts"]:
                open_ends.pop()
            self.assertLessEqual(event["ts"] + event["dur"], min(open_ends, default=float("inf")), event)
            open_ends.append(event["ts"] + event["dur"])
        named = {(event["pid"], event["tid"]) for event in events if event["ph"] == "M"}
        self.assertLessEqual({(event["pid"], event["tid"]) for event in slices}, named)
        run = self.gpumod("history", "show", "--trace", self.root / "no/such/folder/x.json", "--json")
        self.assertEqual(run.code, 1, run)
        self.assertIn("no/such/folder", run.json["error"]["message"])

    def test_what_makes_no_sense_is_said(self):
        self.switch("quick")
        for words, code in ((("history", "show", "first"), 2), (("history", "show", "99"), 4),
                            (("history", "--limit", "0"), 2), (("bench", "switch", "--modes", "quick"), 2),
                            (("bench", "switch", "--modes", "quick,quick"), 2),
                            (("bench", "switch", "--modes", "quick,nothing"), 4),
                            (("bench", "switch", "--rounds", "0"), 2),
                            (("bench", "switch", "--compare", self.config / "modes/quick.yaml"), 2)):
            run = self.gpumod(*words, "--json")
            self.assertEqual(run.code, code, (words, run))
            self.assertTrue(run.json["error"]["message"], words)
        self.assertEqual(self.state_of("quick"), "running", "nothing was begun")

    def test_a_run_whose_worker_is_killed_is_brought_home_by_repair(self):
        self.toy("mine", free_port())
        self.mode("mine", "mine")
        for words in ("bench", "switch", "--modes", "quick,slow", "--rounds", "20"), ("qa", "run", "--modes", "slow,quick,slow"):
            with self.subTest(words[0]):
                self.switch("mine")
                run = self.start_gpumod(*words)
                self.addCleanup(run.kill)
                worker = until(lambda: (self.ok("mode", "status", "--json").json["switch"] or {}).get("pid"))
                until(lambda: self.listed_all()[0]["kind"] != "mode switch" and self.state_of("mine") == "stopped")
                os.kill(worker, signal.SIGKILL)
                run.communicate(timeout=30)
                note = next(note for note in self.status()["notes"] if "was cut short" in note)
                self.assertIn(f"'{words[0]} {words[1]}' was cut short; before it, mode mine ran: gpumod repair", note)
                self.ok("repair", timeout=60)
                self.assertEqual({name: line["state"] for name, line in self.services().items()},
                                 {"mine": "running", "quick": "stopped", "slow": "stopped"})
                status = self.status()
                self.assertEqual((status["mode"], status["differences"], status["notes"]), ("mine", [], []))

    def test_what_people_ask_for_next_counts_more_than_a_run_that_was_cut_short(self):
        self.switch("quick")
        home = self.root / "state/come-home.json"
        home.write_text(json.dumps({"kind": "qa run", "goal": {"mode": "slow", "exclusive": True, "wanted": {"slow": "running"}}}))
        for words in ("status",), ("mode", "status"):
            shown = self.ok(*words).out
            self.assertIn("mode slow ran", shown)
            self.assertIn("not as it should be", shown)
        self.switch("quick")
        self.assertFalse(home.exists())

    def test_the_bench_measures_each_way_and_brings_back_what_ran(self):
        self.switch("slow")
        before = len(self.listed())
        run = self.ok("bench", "switch", "--modes", "quick,slow", "--rounds", "2", "--warm-up", "1", "--json", timeout=120)
        bench = run.json["bench"]
        self.assertEqual([(line["from"], line["to"]) for line in bench["transitions"]], [("quick", "slow"), ("slow", "quick")])
        there, back = bench["transitions"]
        for line in (there, back):
            self.assertEqual((len(line["seconds"]["all"]), line["failed"]), (2, 0))
        self.assertGreater(there["seconds"]["median"], 1.5)
        self.assertLess(back["seconds"]["median"], there["seconds"]["median"])
        start = next(line for line in there["steps"] if line["action"] == "start")
        self.assertEqual((start["subject"], len(start["seconds"]["all"])), ("slow", 2))
        self.assertEqual(self.state_of("slow"), "running")
        self.assertEqual(self.state_of("quick"), "stopped")
        self.assertEqual(self.status()["mode"], "slow")
        # Three rounds of two switches, each from nothing to the first mode, and the way back.
        self.assertEqual(len(self.listed_all()) - before, 3 * 4 + 1)
        self.assertEqual(self.shown(str(there["switches"][0]))["recording"]["what"], "bench switch slow")

        file = self.root / "bench.json"
        bench["transitions"][0]["seconds"].update(median=0.3, spread=0.0, all=[0.3, 0.3])
        file.write_text(json.dumps({"bench": bench}))
        run = self.gpumod("bench", "switch", "--modes", "quick,slow", "--rounds", "1", "--warm-up", "0", "--compare", file,
                          "--json", timeout=120)
        self.assertEqual(run.code, 1, run)
        regressions = run.json["bench"]["compared"]["regressions"]
        self.assertEqual([(line["from"], line["to"]) for line in regressions], [("quick", "slow")])
        self.assertEqual(regressions[0]["before"], 0.3)
        self.assertGreater(regressions[0]["after"], 1.5)
        self.assertIn("slower", run.json["error"]["message"])
        run = self.gpumod("bench", "switch", "--modes", "quick,slow", "--cold", "--compare", file, "--json")
        self.assertEqual(run.code, 2, "it was measured warm")

    def listed_all(self):
        return self.ok("history", "--all", "--limit", "1000", "--json").json["switches"]

    def test_a_bench_that_is_cancelled_brings_back_what_ran(self):
        self.switch("slow")
        process = self.start_gpumod("bench", "switch", "--modes", "quick,slow", "--rounds", "500")
        until(lambda: len(self.listed_all()) > 9, 60, "some rounds")
        answer = self.ok("history", "--json").json
        self.assertEqual([line["what"] for line in answer["switches"]], ["mode switch slow"])
        self.assertRegex(answer["notes"][0], r"^\d+ switches of benches and quality runs are left out: --all shows them$")
        process.send_signal(signal.SIGINT)
        shown, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130, errors)
        self.assertIn("what ran before runs again", errors)
        self.assertRegex(shown, r"FROM +TO +MEDIAN")
        self.assertEqual(self.state_of("slow"), "running")
        self.assertEqual(self.status()["mode"], "slow")

    def test_a_bench_that_ends_early_tells_what_it_has_measured(self):
        self.switch("slow")
        process = self.start_gpumod("bench", "switch", "--modes", "quick,slow", "--rounds", "500", "--warm-up", "0", "--json")
        until(lambda: len(self.listed_all()) > 6, 60, "a round")
        process.send_signal(signal.SIGINT)
        shown, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130, errors)
        answer = json.loads(shown)
        self.assertEqual(answer["error"]["code"], "cancelled")
        self.assertGreaterEqual(len(answer["bench"]["transitions"][0]["seconds"]["all"]), 1)

    def test_a_bench_that_is_given_up_says_which_switch_failed(self):
        self.toy("broken", free_port(), "--exit-at-once", "1")
        self.mode("broken", "broken")
        self.switch("quick")
        words = ("bench", "switch", "--modes", "quick,broken", "--rounds", "2")
        run = self.gpumod(*words, "--json", timeout=120)
        self.assertEqual(run.code, 1, run)
        self.assertIn("given up", run.json["error"]["message"])
        first = run.json["bench"]["transitions"][0]
        self.assertEqual((first["from"], first["to"], first["failed"]), ("quick", "broken", 1))
        self.assertIn("broken", first["cause"])
        run = self.gpumod(*words, timeout=120)
        self.assertEqual(run.code, 1, run)
        self.assertRegex(run.out, r"quick +broken +0 +1\n")
        self.assertEqual(self.status()["mode"], "quick")


class Recordings(SimulatedGpu):
    """On a simulated GPU: who held its memory, and what was waited for."""

    def recording(self):
        return self.ok("history", "show", "--json").json["recording"]

    def test_the_curve_shows_who_held_the_memory(self):
        self.switch("code", timeout=120)
        switch = self.switch("rag", timeout=120)
        recording = self.recording()
        gpu, = recording["gpus"]
        self.assertEqual(gpu["total"], 24564 * MIB)
        self.assertGreaterEqual(gpu["peak"], 22000 * MIB)
        self.assertEqual(gpu["peak"], switch["vram"]["peak"])
        self.assertGreaterEqual(gpu["predicted_peak"], 22000 * MIB)
        first, last = recording["curve"][0], recording["curve"][-1]
        self.assertGreater(first["held"]["qwen3-coder"], 22000 * MIB)
        self.assertEqual(list(last["held"]), ["vllm-embedding"])
        times = [point["at"] for point in recording["curve"]]
        self.assertEqual(times, sorted(times))
        self.assertLess(len(times), 240)
        screen = self.ok("history", "show").out
        for words in ("GPU 0", "qwen3-coder", "vllm-embedding", "24564 MiB", "getting ready"):
            self.assertIn(words, screen)

    def test_a_wait_for_memory_has_its_cause(self):
        self.switch("code", timeout=120)
        self.ask_gpu("curve 0s 80s unlisted")
        self.switch("rag", timeout=120)
        answer = self.ok("history", "show", "--json").json
        waits = [wait for wait in answer["recording"]["waits"] if wait["for"] == "memory"]
        longest = max(waits, key=lambda wait: wait["until"] - wait["from"])
        self.assertGreater(longest["until"] - longest["from"], 1.0)
        self.assertIn("nobody holds", longest["cause"])
        self.assertGreater(max(point["unheld"] for point in answer["recording"]["curve"]), 20000 * MIB)
        self.assertIn("for memory", " ".join(answer["summary"]))

    def test_a_cold_bench_says_what_it_dropped(self):
        (self.models / "Qwen3-Coder-30B-A3B-Instruct-Q4_K_M.gguf").write_bytes(b"GGUF\x03\0\0\0" + bytes(5 * MIB))
        os.sync()
        bench = self.ok("bench", "switch", "--modes", "blank,code", "--rounds", "1", "--warm-up", "0", "--cold", "--json",
                        timeout=180).json["bench"]
        self.assertTrue(bench["cold"])
        self.assertEqual(bench["gpus"], ["NVIDIA GeForce RTX 4090"])
        there, back = bench["transitions"]
        self.assertEqual((there["cache"]["files"], there["cache"]["bytes"]), (1, 5 * MIB + 8))
        self.assertLessEqual(there["cache"]["cached_after"], there["cache"]["cached_before"])
        self.assertEqual(back["cache"]["files"], 0, "nothing is read on the way to nothing")
        self.assertEqual(self.holders(), [])


if __name__ == "__main__":
    unittest.main()
