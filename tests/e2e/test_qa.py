"""Quality runs: every switch of a tour is made, examined and reported, and what becomes worse is found again."""
import json
import pathlib
import signal
import time
import unittest

from browser import CHROMIUM, Browser
from harness import Case, MODELS, free_port, needs_llama, post, until
from test_chain import CODER, MIB, SimulatedGpu
from test_demo import DemoCase


def kinds(entries):
    return {entry["kind"] for entry in entries}


class QaCase:
    def qa(self, *words, code=0, timeout=180):
        run = self.gpumod("qa", "run", "--json", *words, timeout=timeout)
        self.assertEqual(run.code, code, run)
        return run.json["qa"]

    def reports_in(self, folder):
        """The three of one run, read; what is in them must be the same story."""
        files = {path.suffix: path for path in pathlib.Path(folder).iterdir()}
        self.assertEqual(set(files), {".md", ".json", ".html"})
        run = json.loads(files[".json"].read_text())
        markdown, html = files[".md"].read_text(), files[".html"].read_text()
        self.assertIn("</html>", html)
        self.assertNotIn("<script", html)
        for issue in run["issues"]:
            self.assertIn(issue["title"], html)
        self.assertIn("## Summary", markdown)
        return run, markdown


class QaRuns(QaCase, SimulatedGpu):
    def test_a_run_proves_the_box_and_keeps_the_proof(self):
        self.switch("blank")
        run = self.qa("--modes", "blank,code,rag,code,nemotron,blank", "--report", self.root / "reports")
        self.assertEqual(run["result"], "passed", run["issues"])
        self.assertEqual([(line["from"], line["to"]) for line in run["transitions"]],
                         [("blank", "code"), ("code", "rag"), ("rag", "code"), ("code", "nemotron"), ("nemotron", "blank")])
        coder = run["transitions"][0]["services"][0]
        self.assertEqual((coder["kind"], coder["answer"], coder["problems"]), ("chat", "I write code.", []))
        for figure in ("tokens_per_second", "prompt_tokens_per_second", "first_token_seconds"):
            self.assertGreater(coder["figures"][figure], 0)
        embedder = run["transitions"][1]["services"][0]
        self.assertEqual(embedder["figures"]["dimensions"], 2048)
        self.assertAlmostEqual(embedder["figures"]["norm"], 1, 2)
        self.assertAlmostEqual(embedder["figures"]["same"], 1, 3)
        self.assertGreater(embedder["figures"]["near"], embedder["figures"]["far"])
        self.assertTrue(run["transitions"][3]["services"][0]["reasoning"], "nemotron thinks")
        self.assertEqual(run["environment"]["driver"], "580.65.06")
        self.assertEqual(round(run["transitions"][0]["vram"]["ours"] / MIB), 22514)
        written, markdown = self.reports_in(self.root / "reports")
        self.assertEqual(written["id"], 1)
        self.assertRegex(markdown, r"\| code → rag \| [0-9.]+ s \| PASS \|")
        self.assertEqual([line["passed"] for line in self.ok("qa", "list", "--json").json["runs"]], [5])
        shown = self.ok("qa", "show", "last").out
        self.assertIn("5 of 5 transitions passed", shown)
        self.assertEqual(self.status()["mode"], "blank")
        # The same again is compared, and nothing is worse.
        again = self.qa("--modes", "blank,code,rag,code,nemotron,blank", "--fail-on-regression")
        self.assertEqual((again["compared"]["before"], again["compared"]["regressions"]), (1, []))

    def test_the_usual_tour_has_every_transition_and_ends_where_it_began(self):
        self.mode("both", "nemotron-3-nano", "qwen3-coder", "vllm-embedding")  # more than there is room for
        self.switch("rag", timeout=60)
        tour = self.ok("qa", "run", "--dry-run", "--json").json["tour"]
        self.assertEqual((tour["from"], len(tour["targets"]), tour["targets"][-1]), ("rag", 5 * 4, "rag"))
        self.assertEqual(self.state_of("vllm-embedding"), "running")
        (self.config / "modes/both.yaml").unlink()
        (self.config / "modes/nemotron.yaml").unlink()
        run = self.qa()
        pairs = [(line["from"], line["to"]) for line in run["transitions"]]
        self.assertEqual(len(pairs), 6)
        self.assertEqual(set(pairs), {(a, b) for a in ("blank", "code", "rag") for b in ("blank", "code", "rag") if a != b})
        self.assertEqual(self.status()["mode"], "rag")

    def test_it_ends_where_it_began_and_not_where_its_sequence_does(self):
        self.switch("rag", timeout=60)
        run = self.qa("--modes", "code")
        self.assertEqual(run["restored"]["mode"], "rag")
        self.assertEqual(self.state_of("vllm-embedding"), "running")
        self.assertIn("was restored", self.ok("qa", "show", "last").out)

    def test_a_mode_that_is_broken_is_named_and_left_out(self):
        self.switch("blank")
        self.mode("odd", "nobody")
        run = self.gpumod("qa", "run", "--dry-run")
        self.assertEqual(run.code, 0, run)
        self.assertIn("mode 'odd' is left out", run.err)
        self.assertNotIn("odd", run.out)

    def test_planted_regressions_are_found(self):
        self.switch("blank")
        sequence = ("--modes", "blank,code,rag,blank")
        self.qa(*sequence, "--rounds", 2)
        self.model(CODER, "weights=17699MiB", "kv-per-1k=136MiB", "compute=463MiB", "load=40s", "answer=I write code.",
                   "tokens-per-second=50")
        embedding = self.config / "services/vllm-embedding.yaml"
        embedding.write_text(embedding.read_text().replace("dims=2048", "dims=1024"))
        orphan = self.simulate("desktop", "--as", "runaway", "--holds", "300MiB", GPUMOD_SERVICE="qwen3-coder")
        run = self.qa(*sequence, code=1)
        self.assertEqual(kinds(run["compared"]["regressions"]) & {"load", "tokens", "dimensions", "orphan"},
                         {"load", "tokens", "dimensions", "orphan"}, run["compared"])
        self.assertIn("orphan", kinds(run["issues"]))
        self.assertIn(str(orphan.pid), json.dumps(run["transitions"][0]["orphans"]))
        found = self.ok("qa", "diff", 1, 2).out
        self.assertRegex(found, r"qwen3-coder took \S+ s to come up, and \S+ s before")
        self.assertRegex(found, r"qwen3-coder in code generates \d+ tok/s, and \d+ tok/s before")
        self.assertIn("1024 dimensions, and with 2048 before", found)
        self.assertIn("runaway", found)
        self.assertEqual(self.gpumod("qa", "diff", 1, 2, "--fail-on-regression").code, 1)
        self.assertEqual(self.gpumod("qa", "diff", 2, 2, "--fail-on-regression").code, 0)

    def test_only_a_regression_fails_only_when_asked(self):
        self.switch("code", timeout=60)
        self.qa("--modes", "code")
        self.model(CODER, "weights=17699MiB", "kv-per-1k=136MiB", "compute=463MiB", "load=4s", "answer=I write code.",
                   "tokens-per-second=20")
        self.ok("service", "restart", "qwen3-coder", timeout=60)
        self.assertEqual(kinds(self.qa("--modes", "code")["compared"]["regressions"]) - {"first_token"}, {"tokens"})
        self.ok("qa", "diff", 1, 2)
        self.model(CODER, "weights=17699MiB", "kv-per-1k=136MiB", "compute=463MiB", "load=4s", "answer=I write code.",
                   "tokens-per-second=5")
        self.ok("service", "restart", "qwen3-coder", timeout=60)
        run = self.gpumod("qa", "run", "--modes", "code", "--fail-on-regression", timeout=60)
        self.assertEqual(run.code, 1, run)
        self.assertIn("regression", run.err)

    def test_it_goes_on_after_a_switch_that_failed(self):
        self.switch("blank")
        self.vllm("fault=model-error")
        run = self.qa("--modes", "blank,code,rag,nemotron,blank", "--report", self.root / "reports", code=1)
        self.assertEqual([line["result"] for line in run["transitions"]],
                         ["committed", "rolled_back", "committed", "committed"])
        third = run["transitions"][2]
        self.assertEqual((third["from"], third["note"]), ("code", "it was to begin in rag, which was not reached"))
        issue = run["issues"][0]
        self.assertEqual((issue["kind"], issue["service"], issue["transitions"]), ("failed", "vllm-embedding", ["code → rag"]))
        self.assertIn("tokenizer", issue["cause"])
        self.assertIn("What ran before runs again", issue["impact"])
        _, markdown = self.reports_in(self.root / "reports")
        self.assertIn("| code → rag |", markdown)
        self.assertIn("tokenizer", markdown)

    def test_its_report_is_an_answer_also_when_it_failed(self):
        self.switch("blank")
        self.vllm("fault=model-error")
        run = self.gpumod("qa", "run", "--modes", "blank,rag", timeout=120)
        self.assertEqual(run.code, 1, run)
        self.assertRegex(run.out, r"blank (→|->) rag +\S+ s +ROLLED BACK")
        self.assertIn("tokenizer", run.out)
        self.assertRegex(run.err, r"^gpumod: the quality run failed: 0 of 1 transition passed")
        self.assertNotIn("symptom", run.err)

    def test_an_interrupted_run_restores_what_ran_before(self):
        self.switch("code", timeout=60)
        running = self.start_gpumod("qa", "run", "--modes", "code,nemotron,rag,code", "--json")
        until(lambda: (self.status()["switch"] or {}).get("under_way") and self.state_of("vllm-embedding") == "starting",
              30, "the start of the embedding")
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
        self.assertEqual(running.returncode, 130, err)
        run = json.loads(out)["qa"]
        self.assertEqual((run["result"], [line["result"] for line in run["transitions"]]),
                         ("cancelled", ["committed", "cancelled"]))
        self.assertEqual(run["restored"], {"mode": "code", "problem": None})
        status = self.status()
        self.assertEqual((status["mode"], status["differences"], status["orphans"]), ("code", [], []))

    def run_into_a_wedge(self):
        """A quality run that waits for an answer which never comes; before it, the embedding ran."""
        self.switch("rag", timeout=60)
        self.model(CODER, "weights=17699MiB", "kv-per-1k=136MiB", "compute=463MiB", "load=4s", "answer=I write code.",
                   "fault=wedged-child", "wedge-after=1")  # the probe of its start is answered, and nothing after it
        coder = self.config / "services/qwen3-coder.yaml"
        coder.write_text(coder.read_text() + "probe: {timeout: 300s}\n")
        running = self.start_gpumod("qa", "run", "--modes", "code,blank", "--json")
        self.addCleanup(running.kill)
        until(lambda: self.connections_to(self.router), 60, "the examination's question")
        return running

    def connections_to(self, port):
        """Of gpumod, for some time: the short questions of an observation are over sooner."""
        for _ in range(10):
            lines = pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]
            if not any(line.split()[2].endswith(f":{port:04X}") and line.split()[3] == "01" for line in lines):
                return False
            time.sleep(0.05)
        return True

    def ends_as_it_began(self, running):
        asked = time.monotonic()
        out, err = running.communicate(timeout=60)
        self.assertEqual(running.returncode, 130, err)
        self.assertLess(time.monotonic() - asked, 40)
        run = json.loads(out)["qa"]
        self.assertEqual((run["result"], run["restored"]), ("cancelled", {"mode": "rag", "problem": None}))
        self.assertEqual([(line["to"], line["result"], line["services"]) for line in run["transitions"]],
                         [("code", "committed", [])])
        status = self.status()
        self.assertEqual((status["mode"], status["differences"], status["orphans"]), ("rag", [], []))
        answer = post(self.embedding, "/v1/embeddings", {"model": "embedder", "input": "hello"})
        self.assertEqual(len(answer["data"][0]["embedding"]), 2048)

    def test_a_question_that_is_never_answered_is_given_up_at_once(self):
        running = self.run_into_a_wedge()
        running.send_signal(signal.SIGINT)
        self.ends_as_it_began(running)

    def test_another_terminal_can_give_it_up(self):
        running = self.run_into_a_wedge()
        taken_back = self.gpumod("mode", "cancel")
        self.assertEqual(taken_back.code, 0, taken_back)
        self.ends_as_it_began(running)

    def test_what_ran_before_comes_back_after_a_switch_that_failed_and_left_nothing(self):
        self.write("services/never.yaml", f"""
            engine: command
            port: {free_port()}
            cmd: [sleep, "600"]
            check: /health
            vram: 0
            startup_timeout: 2s
            """)
        self.mode("lost", "never", on_failure="blank")
        self.switch("rag", timeout=60)
        run = self.qa("--modes", "lost", "--report", self.root / "reports", code=1)
        self.assertEqual([(line["to"], line["result"]) for line in run["transitions"]], [("lost", "failed")])
        failed = run["transitions"][0]["services"]
        self.assertEqual([(seen["service"], seen["passed"]) for seen in failed], [("vllm-embedding", False)],
                         "the switch left nothing that answers: only the restore can have brought it back")
        self.assertEqual((run["result"], run["restored"]), ("failed", {"mode": "rag", "problem": None}))
        _, markdown = self.reports_in(self.root / "reports")
        says = "the mode it began with, rag, was restored"
        self.assertIn(says, markdown)
        self.assertIn(says, next((self.root / "reports").glob("*.html")).read_text())
        status = self.status()
        self.assertEqual((status["mode"], status["differences"], status["orphans"]), ("rag", [], []))
        answer = post(self.embedding, "/v1/embeddings", {"model": "embedder", "input": "hello"})
        self.assertEqual(len(answer["data"][0]["embedding"]), 2048)

    def test_bad_requests_change_nothing(self):
        self.switch("blank")
        for words, code, says in ((["--modes", "code,rga"], 4, "'rag'"), (["--rounds", "0"], 2, "1 to 100"), (["--rounds", "99"], 2, "500 is the most"),
                                  (["--modes", ""], 2, "names no mode"), (["--report", "/proc/nothing"], 1, "/proc/nothing")):
            run = self.gpumod("qa", "run", *words)
            self.assertEqual(run.code, code, run)
            self.assertIn(says, run.err)
        self.assertEqual(self.gpumod("qa", "show", "3").code, 4)
        self.assertIn("qa run", self.ok("qa", "list").out)


class QaDemos(QaCase, DemoCase):
    """What a session by hand once found, planted, and named by the report with its cause."""

    def report(self, fault=None):
        folder = pathlib.Path(self.tmp.name) / "reports"
        run = self.demo("--report", folder, *(("--fault", fault) if fault else ()), "--json")
        self.assertEqual(run.code, 0, run)
        report, markdown = self.reports_in(folder)
        self.assertEqual((run.json["passed"], report["result"]), (True, "passed"), "both tell the same story")
        return report, markdown

    def test_the_demo_writes_the_three_reports(self):
        report, markdown = self.report()
        self.assertEqual((report["result"], report["issues"]), ("passed", []))
        self.assertEqual(len(report["transitions"]), 5)
        self.assertIn("2048 dimensions", markdown)

    @unittest.skipUnless(CHROMIUM, "no chromium here: nothing looked at the report as people see it")
    def test_a_browser_shows_the_whole_report_and_asks_nobody_for_anything(self):
        self.report("slow-release")
        page = (pathlib.Path(self.tmp.name) / "reports/demo-slow-release.html").as_uri()
        papers = set()
        with Browser() as browser:
            for width, scheme in ((1280, "light"), (1280, "dark"), (400, "light"), (400, "dark")):
                with self.subTest(width=width, scheme=scheme):
                    browser.open(page, width, scheme)
                    self.assertEqual((browser.complaints(), browser.requested()), ([], [page]))
                    bars = browser.value("[...document.querySelectorAll('.bars')].map(chart => Math.max("
                                         "...[...chart.querySelectorAll('rect')].map(r => r.getBoundingClientRect().width)))")
                    self.assertEqual(len(bars), 3, "time, memory and speed")
                    self.assertGreater(min(bars), 0.3 * width)
                    curve = browser.value("(r => [r.width, r.height])(document.querySelector('.curve').getBoundingClientRect())")
                    self.assertGreater(curve[0], 0.5 * width)
                    self.assertGreater(curve[1], 30)
                    self.assertLessEqual(browser.value("document.documentElement.scrollWidth"), width, "nothing sticks out")
                    small = browser.value("Math.min(...[...document.querySelectorAll('body *')].map("
                                          "e => parseFloat(getComputedStyle(e).fontSize)))")
                    self.assertGreater(small, 11)
                    papers.add(browser.value("getComputedStyle(document.body).backgroundColor"))
                    browser.close()
        self.assertEqual(len(papers), 2, "light and dark")

    def test_a_start_that_aborted_once(self):
        report, markdown = self.report("profile-abort")
        issue = next(issue for issue in report["issues"] if issue["kind"] == "attempts")
        self.assertEqual((issue["service"], issue["transitions"]), ("vllm-embedding", ["code → rag"]))
        self.assertIn("another process freed memory", issue["cause"])
        self.assertIn("2 attempts", issue["symptom"])
        self.assertIn("| code → rag |", markdown)
        self.assertIn("PASS\\*", markdown)

    def test_memory_that_came_back_late(self):
        report, markdown = self.report("slow-release")
        issue = next(issue for issue in report["issues"] if issue["kind"] == "wait")
        self.assertEqual(issue["transitions"], ["code → rag"])
        self.assertRegex(issue["cause"], r"^For [0-9.]+ s processes of qwen3-coder held 22514 MiB\.$")
        self.assertIn("came back late", markdown)

    def test_a_process_that_stopped_answering(self):
        report, markdown = self.report("wedged-child")
        issue = next(issue for issue in report["issues"] if issue["kind"] == "attempts")
        self.assertEqual((issue["service"], issue["transitions"]), ("qwen3-coder", ["code → code"]))
        self.assertIn("no answer within 5.0 s", issue["cause"])
        self.assertIn("PASS\\*", markdown)

    def test_a_report_that_failed_fails_the_demo(self):
        folder = pathlib.Path(self.tmp.name) / "reports"
        run = self.demo("--report", folder, "--fault", "foreign-grab", "--json")
        self.assertEqual((run.code, run.json["passed"]), (1, False))
        self.assertEqual(self.reports_in(folder)[0]["result"], "failed")

    def test_a_process_that_was_left_behind(self):
        report, markdown = self.report("engine-survivor")
        issue = next(issue for issue in report["issues"] if issue["kind"] == "survivor")
        self.assertIn("did not end on SIGTERM", issue["cause"])
        self.assertIn("rag → code", issue["transitions"])
        self.assertIn("did not end when it was asked to", markdown)


@needs_llama
class QaForReal(QaCase, Case):
    """A real llama-server, without a GPU."""

    def test_a_run_over_real_models(self):
        for name, more in (("single", ""), ("embed", "embeddings: true")):
            self.write(f"services/{name}.yaml", f"""
                engine: llamacpp
                port: {free_port()}
                model: {MODELS}/{name}.gguf
                vram: 0
                {more}
                """)
            self.mode(name, name)
        self.mode("blank")
        self.switch("blank")
        run = self.qa("--report", self.root / "reports")
        self.assertEqual(run["result"], "passed", run)
        self.assertEqual(len(run["transitions"]), 6)
        by_mode = {line["to"]: line["services"] for line in run["transitions"]}
        chat, embedding = by_mode["single"][0], by_mode["embed"][0]
        self.assertEqual((chat["kind"], embedding["kind"]), ("chat", "embedding"))
        self.assertGreater(chat["figures"]["tokens_per_second"], 0)
        self.assertGreater(chat["figures"]["first_token_seconds"], 0)
        self.assertGreater(embedding["figures"]["dimensions"], 1)
        self.reports_in(self.root / "reports")
        self.assertEqual(self.status()["mode"], "blank")


if __name__ == "__main__":
    unittest.main()
