"""gpumod demo, as a person or a script runs it: the chain, every fault, and what is left when it is interrupted."""
import json
import os
import pathlib
import pty
import re
import select
import signal
import subprocess
import tempfile
import time
import unittest

from harness import GPUMOD, Run, alive, until


def processes_of(directory):
    """Pids whose command line or environment names the demo's private directory."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        for what in ("cmdline", "environ"):
            try:
                if str(directory).encode() in (entry / what).read_bytes():
                    found.append(int(entry.name))
                    break
            except OSError:
                pass
    return found


class DemoCase(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.tmp = tempfile.TemporaryDirectory(prefix="gpumod-demo-test-")
        self.addCleanup(self.tmp.cleanup)
        self.env = dict(os.environ, TMPDIR=self.tmp.name, HOME=self.tmp.name, NO_COLOR="1")
        for name in list(self.env):
            if name.startswith(("GPUMOD_CONFIG", "GPUMOD_STATE", "GPUMOD_RUNTIME", "GPUMOD_UNIT", "GPUMOD_NVML")):
                del self.env[name]

    def demo(self, *words, timeout=120):
        return Run(subprocess.run([GPUMOD, "demo", *words], env=self.env, text=True, capture_output=True,
                                  timeout=timeout, stdin=subprocess.DEVNULL, cwd=self.tmp.name))

    def fault(self, name, code=0):
        run = self.demo("--fault", name, "--json")
        self.assertEqual(run.code, code, run)
        report = run.json
        self.assertEqual(report["orphans"], [], run)
        self.assertEqual(report["passed"], code == 0)
        self.nothing_is_left()
        return report["transitions"]

    def nothing_is_left(self):
        until(lambda: not processes_of(self.tmp.name), 10, "the end of everything the demo started")
        self.assertEqual(os.listdir(self.tmp.name), [])

    def passed(self, rows):
        for row in rows:
            self.assertIn(row["result"], ("committed", "unchanged"), row)


class Demo(DemoCase):
    def test_the_chain_passes_and_leaves_nothing(self):
        run = self.demo("--json")
        self.assertEqual(run.code, 0, run)
        report = run.json
        self.assertTrue(report["passed"])
        rows = report["transitions"]
        self.assertEqual([(row["from"], row["to"]) for row in rows],
                         [("blank", "code"), ("code", "rag"), ("rag", "code"), ("code", "nemotron"), ("nemotron", "blank")])
        self.passed(rows)
        mib = [round(row["vram"] / 2**20) for row in rows]
        self.assertEqual([mib[0], mib[2], mib[3], mib[4]], [22529, 22529, 22069, 15])
        self.assertIn("2048 dimensions", rows[1]["notes"])
        self.assertIn("How can I help", rows[0]["notes"])
        # One router for both models: the second is loaded into the process that runs, on the port that it holds.
        self.assertEqual([step["action"] for step in rows[3]["steps"]], ["unload", "load"])
        self.assertEqual(report["orphans"], [])
        self.assertEqual(report["final_vram"], 15 * 2**20)
        self.nothing_is_left()

    def test_a_person_sees_the_table_and_what_to_try_next(self):
        run = self.demo("--modes", "rag,blank")
        self.assertEqual(run.code, 0, run)
        self.assertRegex(run.out, r"blank → rag +[0-9.]+ s +PASS +\d+ MiB")
        self.assertRegex(run.out, r"rag → blank +[0-9.]+ s +PASS +15 MiB")
        self.assertIn("no orphans", run.out)
        self.assertIn("gpumod demo --fault list", run.out)
        self.nothing_is_left()

    def test_on_a_narrow_screen_nothing_is_cut(self):
        self.env["COLUMNS"] = "60"
        run = self.demo("--modes", "rag,blank")
        self.assertEqual(run.code, 0, run)
        after = run.out[run.out.index("TRANSITION"):]
        self.assertNotIn("…", after)
        self.assertIn("engines and models", after)

    def test_what_is_wanted_of_it_must_make_sense(self):
        for words, code, says in ((["--speed", "fast"], 2, "--speed"), (["--fault", "slow-relase"], 2, "slow-release"),
                                  (["--modes", "code,rgs"], 4, "'rag'"), (["--speed", "0"], 2, "0.1 to 100"),
                                  (["--modes", ""], 2, "names no mode")):
            run = self.demo(*words)
            self.assertEqual(run.code, code, run)
            self.assertIn(says, run.err)
            self.assertEqual(run.out, "")
        self.nothing_is_left()

    def test_without_a_directory_for_temporary_files_it_says_so(self):
        self.env["TMPDIR"] = "/nonexistent"
        run = self.demo()
        self.assertEqual(run.code, 7, run)
        self.assertIn("TMPDIR", run.err)

    def test_every_fault_is_described(self):
        listed = self.demo("--fault", "list", "--json").json["faults"]
        self.assertEqual({fault["name"] for fault in listed},
                         {"slow-release", "profile-abort", "engine-survivor", "residual-sleep", "wedged-child",
                          "foreign-noise", "foreign-grab"})
        words = self.demo("--fault", "list").out
        for fault in listed:
            self.assertIn(fault["name"], words)

    def test_keep_leaves_the_files_behind(self):
        run = self.demo("--modes", "rag", "--keep", "--json")
        self.assertEqual(run.code, 0, run)
        directory = pathlib.Path(run.json["directory"])
        self.assertTrue((directory / "config/services/vllm-embedding.yaml").exists())
        self.assertNotIn("demo --keep", self.demo("--modes", "rag", "--keep").out, "that is what was just done")
        until(lambda: not processes_of(directory), 10, "the end of everything the demo started")


class DemoFaults(DemoCase):
    def test_slow_release(self):
        rows = self.fault("slow-release")
        self.passed(rows)
        self.assertGreater(rows[1]["seconds"], 7.5, "90 s at 12 times the speed")
        self.assertEqual([step["attempts"] for step in rows[1]["steps"] if step["action"] == "start"], [1])

    def test_profile_abort(self):
        rows = self.fault("profile-abort")
        self.passed(rows)
        start = next(step for step in rows[1]["steps"] if step["action"] == "start")
        self.assertEqual(start["attempts"], 2)
        self.assertIn("another process freed memory", start["earlier"][0])

    def test_engine_survivor(self):
        rows = self.fault("engine-survivor")
        self.passed(rows)
        self.assertIn("did not end on SIGTERM", rows[2]["notes"])

    def test_residual_sleep(self):
        rows = self.fault("residual-sleep", code=1)
        self.assertEqual([row["result"] for row in rows],
                         ["committed", "committed", "rolled_back", "committed", "committed", "committed"])
        self.assertIn("still holds 4800 MiB on GPU 0", rows[2]["notes"])
        self.assertIn("vllm-embedding: 2048 dimensions", rows[2]["notes"])

    def test_wedged_child(self):
        rows = self.fault("wedged-child")
        self.passed(rows)
        self.assertEqual((rows[1]["from"], rows[1]["to"]), ("code", "code"))
        self.assertIn("no answer within 5.0 s", rows[1]["notes"])
        self.assertEqual([step["action"] for step in rows[1]["steps"]], ["verify", "stop", "start", "load"])

    def test_foreign_noise(self):
        rows = self.fault("foreign-noise")
        self.passed(rows)
        self.assertTrue(all(step["attempts"] <= 1 for row in rows for step in row["steps"]))

    def test_foreign_grab(self):
        rows = self.fault("foreign-grab", code=1)
        self.assertEqual([row["result"] for row in rows],
                         ["committed", "committed", "rolled_back", "committed", "committed"])
        self.assertRegex(rows[2]["notes"], r"held by pid \d+ \(blender, user \S+, not ours\): 8192 MiB")
        self.assertEqual(rows[3]["from"], "rag")


class DemoInterruptions(DemoCase):
    def start(self, *words, **kwargs):
        return subprocess.Popen([GPUMOD, "demo", *words], env=self.env, cwd=self.tmp.name, **kwargs)

    def wait_for_an_engine(self):
        until(lambda: any("VLLM::EngineCor" in pathlib.Path(f"/proc/{pid}/comm").read_text()
                          for pid in processes_of(self.tmp.name) if alive(pid)), 20, "an engine that loads")

    def test_ctrl_c_ends_all_that_it_started(self):
        demo = self.start("--modes", "rag", "--speed", "1", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.wait_for_an_engine()
        demo.send_signal(signal.SIGINT)
        _, complaint = demo.communicate(timeout=60)
        self.assertEqual(demo.returncode, 130, complaint)
        self.nothing_is_left()

    def test_what_is_kept_is_named_after_ctrl_c_as_well(self):
        demo = self.start("--modes", "rag", "--speed", "1", "--keep", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                          text=True)
        self.wait_for_an_engine()
        demo.send_signal(signal.SIGINT)
        _, complaint = demo.communicate(timeout=60)
        self.assertEqual(demo.returncode, 130, complaint)
        kept = re.search(r"Files and logs are in (\S+)", complaint)
        self.assertTrue(kept and pathlib.Path(kept[1], "config").is_dir(), complaint)
        until(lambda: not processes_of(self.tmp.name), 10, "the end of everything the demo started")

    def test_a_reader_that_leaves_ends_it_as_well(self):
        demo = self.start("--modes", "rag", "--speed", "1", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.wait_for_an_engine()
        demo.stdout.close()
        self.assertNotEqual(demo.wait(timeout=60), 0)
        self.nothing_is_left()

    def test_sigterm_does_as_well(self):
        demo = self.start("--modes", "rag", "--speed", "1", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.wait_for_an_engine()
        demo.send_signal(signal.SIGTERM)
        self.assertEqual(demo.wait(timeout=60), -signal.SIGTERM)
        self.nothing_is_left()

    def test_a_killed_demo_takes_its_engines_with_it(self):
        demo = self.start("--modes", "rag", "--speed", "1", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.wait_for_an_engine()
        demo.kill()
        demo.wait()
        # Nobody is there to stop anything: the GPU goes with its owner, and engines end when their GPU is lost.
        until(lambda: not processes_of(self.tmp.name), 60, "the end of everything the demo started")

    def test_on_a_terminal_it_is_redrawn_in_place(self):
        master, slave = pty.openpty()
        demo = self.start("--modes", "rag,blank", stdin=slave, stdout=slave, stderr=slave, close_fds=True)
        os.close(slave)
        seen = b""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            ready, _, _ = select.select([master], [], [], 1)
            if not ready:
                continue
            try:
                piece = os.read(master, 65536)
            except OSError:
                break
            if not piece:
                break
            seen += piece
        os.close(master)
        self.assertEqual(demo.wait(timeout=10), 0)
        words = seen.decode(errors="replace")
        self.assertIn("VRAM", words)
        self.assertRegex(words, r"[█#]+[░.]* \d+ MiB of 24564 MiB")
        self.assertIn("\x1b[?25h", words, "the cursor comes back")
        last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", words[words.rindex("\x1b[?25h"):])
        self.assertIn("no orphans", last)


if __name__ == "__main__":
    unittest.main()
