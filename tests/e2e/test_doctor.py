"""`gpumod doctor`: a machine in order, one thing after the other broken on it, and a driver that never answers."""
import glob
import os
import pathlib
import pty
import socket
import stat
import subprocess
import time
import unittest

from harness import GPUMOD, MANAGER, Case, free_port, needs_systemd

BUILD = pathlib.Path(GPUMOD).resolve().parent.parent
NVML = BUILD / "lib/libgpumod-sim-nvml.so"
STANDIN = os.environ.get("GPUMOD_NVML_STANDIN", "")


class DoctorCase(Case):
    def setUp(self):
        super().setUp()
        self.box = self.root / "box"
        self.env.update(GPUMOD_BOX_ROOT=str(self.box), GPUMOD_NVML_LIBRARY=str(NVML),
                        GPUMOD_SIM_GPU=str(self.root / "gpu.sock"), LC_ALL="C.UTF-8")
        for name in ("config", "config/services", "config/modes"):
            (self.root / name).chmod(0o700)
        self.plant("proc/meminfo", "MemTotal: 67108864 kB\nMemAvailable: 50000000 kB\nSwapTotal: 8388608 kB\n")
        self.plant("proc/77/comm", "earlyoom\n")
        self.simulate("broker", "--socket", self.root / "gpu.sock", "--gpu", "RTX 4090=24564MiB")
        self.port = free_port()
        self.toy("chat", self.port)
        self.mode("code", "chat")

    def plant(self, path, text):
        target = self.box / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def doctor(self, *words, code=None, **kwargs):
        run = self.gpumod("doctor", "--json", *words, **kwargs)
        if code is not None:
            self.assertEqual(run.code, code, run)
        answer = run.json
        self.checks = {check["id"]: check for check in answer["checks"]}
        return answer

    def said(self, check, state):
        return " ".join(f"{finding['text']} → {finding['mend']}" for finding in self.checks[check]["findings"]
                        if finding["state"] == state)


class Doctor(DoctorCase):
    def test_what_is_in_order_is_said_to_be(self):
        self.switch("code")
        answer = self.doctor()
        for check in ("gpu.driver", "gpu.persistence", "gpu.memory", "units.manager", "memory.pressure", "memory.guards",
                      "disk.models", "engines.programs", "engines.environments", "files.catalogue", "runs.switch",
                      "runs.orphans", "runs.goal"):
            self.assertEqual(self.checks[check]["state"], "ok", self.checks[check])
        self.assertIn("580.65.06, 1 GPU", self.said("gpu.driver", "ok"))
        self.assertIn("mode code runs", self.said("runs.goal", "ok"))
        self.assertLess(answer["seconds"], 5)
        self.assertNotIn("failure", [check["state"] for check in answer["checks"]])

    def test_people_see_the_worst_last(self):
        self.plant("proc/meminfo", "MemTotal: 67108864 kB\nMemAvailable: 50000000 kB\nSwapTotal: 0 kB\n")
        self.write("services/odd.yaml", "engine: command\nprot: 1\n")
        run = self.gpumod("doctor")
        self.assertEqual(run.code, 7, run)
        self.assertLess(run.out.index("no swap"), run.out.index("Your files: services/odd.yaml"))
        self.assertRegex(run.out.splitlines()[-1] + run.out.splitlines()[-2], r"1 failure, \d+ warning")

    def test_an_orphan_and_a_stranger_on_a_port(self):
        self.toy("old", free_port())
        self.ok("service", "start", "old")
        (self.config / "services/old.yaml").unlink()
        stranger = subprocess.Popen(["python3", "-c", "import socket, sys, time\ns = socket.socket()\n"
                                     f"s.bind(('127.0.0.1', {self.port}))\ns.listen()\nprint(1, flush=True)\ntime.sleep(100)"],
                                    stdout=subprocess.PIPE)
        self.addCleanup(stranger.stdout.close)
        self.addCleanup(stranger.wait)
        self.addCleanup(stranger.kill)
        stranger.stdout.read(1)
        self.doctor(code=8)
        self.assertIn("gpumod-old.service is active, and no file defines it", self.said("runs.orphans", "warning"))
        self.assertIn(f"port {self.port} of 'chat' is taken by pid {stranger.pid} (", self.said("files.ports", "warning"))

    def test_an_environment_that_lost_its_python(self):
        venv = self.root / "venv"
        (venv / "bin").mkdir(parents=True)
        (venv / "pyvenv.cfg").write_text("home = /usr/bin\n")
        (venv / "bin/python").symlink_to("/usr/bin/python3.0-gone")
        program = venv / "bin/serve"
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        self.write("services/tts.yaml", f"engine: command\ncmd: [{program}]\ncheck: none\nvram: 0\n")
        self.doctor(code=7)
        self.assertIn(f"{venv} has lost its Python: 'tts' cannot start", self.said("engines.environments", "failure"))
        self.assertIn("venv --clear", self.said("engines.environments", "failure"))

    def test_a_lost_gpu_is_named(self):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(self.env["GPUMOD_SIM_GPU"])
            connection.sendall(b"fault gpu-lost=0\n")
            connection.recv(100)
        self.doctor(code=7)
        self.assertIn("lost", self.said("gpu.driver", "failure"))

    def test_what_is_safe_is_mended_after_consent(self):
        self.write("keys.env", "TOKEN=secret\n", mode=0o644)
        self.toy("chat", self.port, extra="env_file: keys.env")
        (self.root / "state").mkdir(mode=0o755)
        (self.root / "state").chmod(0o755)
        keys = self.config / "keys.env"
        answer = self.doctor()
        self.assertIn({"check": "files.catalogue", "text": f"set the mode of {keys} to 0600"}, answer["fixes"])
        self.assertEqual(answer["fixed"], [])
        shown = self.gpumod("doctor", "--fix")
        self.assertEqual(shown.code, 3, shown)
        self.assertIn(f"set the mode of {keys} to 0600", shown.out)
        self.assertIn("nobody to ask", shown.err)
        self.assertEqual(stat.S_IMODE(keys.stat().st_mode), 0o644)

        mended = self.gpumod("doctor", "--fix", "--yes", "--json").json
        done = {line["text"]: line["done"] for line in mended["fixed"]}
        self.assertTrue(done[f"set the mode of {keys} to 0600"], mended["fixed"])
        self.assertEqual(stat.S_IMODE(keys.stat().st_mode), 0o600)
        self.assertEqual(stat.S_IMODE((self.root / "state").stat().st_mode), 0o700)
        self.doctor()
        self.assertEqual(self.checks["files.catalogue"]["state"], "ok", self.checks["files.catalogue"])
        self.assertEqual(self.checks["disk.folders"]["state"], "ok", self.checks["disk.folders"])

    def test_a_runtime_folder_that_others_may_write_to_hides_nothing_else(self):
        (self.root / "run").mkdir(exist_ok=True)
        (self.root / "run").chmod(0o777)
        self.doctor(code=7)
        self.assertIn("others may write to the runtime folder", self.said("disk.folders", "failure"))
        self.assertEqual(self.checks["files.catalogue"]["state"], "ok")
        self.assertEqual(self.gpumod("status").code, 7)
        self.gpumod("doctor", "--fix", "--yes")
        self.ok("status")

    def test_consent_is_asked_for_on_a_terminal(self):
        (self.root / "state").mkdir()
        (self.root / "state").chmod(0o755)
        for reply, mode in (("n\n", 0o755), ("y\n", 0o700)):
            ours, theirs = pty.openpty()
            process = subprocess.Popen([GPUMOD, "doctor", "--fix"], env=self.env, stdin=theirs, stdout=theirs, stderr=theirs)
            os.close(theirs)
            out = b""
            while b"Mend it? [y/N]" not in out:
                out += os.read(ours, 65536)
            os.write(ours, reply.encode())
            while True:
                try:
                    if not os.read(ours, 65536):
                        break
                except OSError:
                    break
            process.wait()
            os.close(ours)
            self.assertEqual(stat.S_IMODE((self.root / "state").stat().st_mode), mode, reply)


    def test_who_may_not_read_the_systems_journal_is_told(self):
        hidden = any(not os.access(file, os.R_OK) for file in glob.glob("/var/log/journal/*/system.journal"))
        hidden = hidden and MANAGER == "systemd"
        remedy = "usermod -aG systemd-journal"
        # A start that fails without a word: what it said, if anything, may lie where this user cannot look.
        self.toy("silent", free_port(), "--exit-at-once", 3)
        run = self.gpumod("service", "start", "silent")
        self.assertEqual(run.code, 1, run)
        (self.assertIn if hidden else self.assertNotIn)(remedy, run.err)
        if MANAGER == "systemd":
            system = self.box / "var/log/journal/1/system.journal"
            self.plant("var/log/journal/1/system.journal", "")
            self.doctor()
            self.assertEqual(self.checks["units.journal"]["state"], "ok")
            if os.geteuid() == 0:
                return  # root reads everything
            system.chmod(0)
            self.doctor()
            self.assertIn(remedy, self.said("units.journal", "note"))
        else:
            self.doctor()
            self.assertEqual(self.checks["units.journal"]["state"], "skipped")


class StuckDriver(DoctorCase):
    @unittest.skipUnless(STANDIN, "the stand-in for NVML was not built")
    def test_a_driver_that_never_answers_is_the_finding_and_holds_nobody_up(self):
        world = self.root / "world"
        world.write_text(f"gpu GPU-1 1000000 1000000 A\nhang {self.root}/never\n")
        stuck = dict(self.env, GPUMOD_NVML_LIBRARY=STANDIN, GPUMOD_NVML_STANDIN_FILE=str(world))
        began = time.monotonic()
        self.doctor(code=7, env=stuck)
        self.assertLess(time.monotonic() - began, 20)
        self.assertIn("still waiting for the NVIDIA driver", self.gpumod("doctor", env=stuck).err)
        self.assertIn("did not answer within 10 s", self.said("gpu.driver", "failure"))
        self.assertIn("dmesg", self.said("gpu.driver", "failure"))
        self.assertEqual(self.checks["units.manager"]["state"], "ok")
        self.assertEqual(self.checks["runs.orphans"]["state"], "ok")
        self.assertEqual(self.checks["gpu.memory"]["state"], "skipped")

    @unittest.skipUnless(STANDIN, "the stand-in for NVML was not built")
    def test_who_asks_about_a_stuck_gpu_gets_an_answer(self):
        world = self.root / "world"
        world.write_text(f"gpu GPU-1 1000000 1000000 A\nhang {self.root}/never\n")
        stuck = dict(self.env, GPUMOD_NVML_LIBRARY=STANDIN, GPUMOD_NVML_STANDIN_FILE=str(world))
        status = self.gpumod("status", env=stuck, timeout=40)
        self.assertEqual(status.code, 0, status)
        self.assertIn("the NVIDIA driver does not answer", status.out)
        self.toy("needy", free_port())
        file = self.config / "services/needy.yaml"
        file.write_text(file.read_text().replace("vram: 0", "vram: 100"))
        self.mode("needy", "needy")
        run = self.gpumod("mode", "switch", "needy", env=stuck, timeout=90)
        self.assertEqual(run.code, 7, run)
        self.assertIn("the NVIDIA driver does not answer", run.err)
        self.assertEqual(self.state_of("needy"), "stopped")

    @needs_systemd
    def test_without_a_user_manager_the_rest_is_said(self):
        self.doctor(code=7, env=dict(self.env, XDG_RUNTIME_DIR=str(self.root / "nowhere"),
                                     DBUS_SESSION_BUS_ADDRESS="unix:path=/nonexistent"))
        self.assertIn("no systemd user manager", self.said("units.manager", "failure"))
        self.assertEqual(self.checks["gpu.driver"]["state"], "ok")
        self.assertEqual(self.checks["runs.orphans"]["state"], "skipped")


if __name__ == "__main__":
    unittest.main()
