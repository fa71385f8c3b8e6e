"""Disks that are full, read-only or no folders at all: it is said at once, with the path and what to do, and what runs
goes on running. Each test has file systems of its own, in a mount namespace of its own.
"""
import contextlib
import ctypes
import os
import pathlib
import shutil
import sqlite3
import subprocess
import time
import unittest

from harness import Case, alive, free_port, listens

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000


def setUpModule():
    """Mounts of ours, that nobody else sees and that end with us. Whoever is not root becomes it in a user namespace."""
    uid, gid = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS if uid == 0 else CLONE_NEWNS | CLONE_NEWUSER) != 0:
        raise unittest.SkipTest(f"no mount namespace can be made here: {os.strerror(ctypes.get_errno())}")
    if uid != 0:
        pathlib.Path("/proc/self/setgroups").write_text("deny")
        pathlib.Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        pathlib.Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)


def fill(folder):
    """Until not one byte more fits; the file that does it."""
    filler = folder / "filler"
    with open(filler, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return filler


class FullDisks(Case):
    def setUp(self):
        super().setUp()
        self.run_folder, self.state = self.root / "run", self.root / "state"
        for folder in (self.run_folder, self.state):
            self.mount(folder, "size=2m,mode=700")
        self.ports = {name: free_port() for name in "ab"}
        for name, port in self.ports.items():
            self.toy(name, port, "--complain", f"a word of {name}")
            self.mode(f"mode-{name}", name)
        self.mode("blank")

    def mount(self, folder, options):
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)

    def remount(self, folder, options):
        subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)

    def tear_down_services(self):
        for folder in (self.run_folder, self.state):
            if folder.is_dir():
                self.remount(folder, "rw")
                (folder / "filler").unlink(missing_ok=True)
        self.write("modes/zz-nothing.yaml", "id: zz-nothing\nservices: []\n")
        self.gpumod("mode", "switch", "zz-nothing")
        for folder in (self.run_folder, self.state):
            subprocess.run(["umount", "-l", str(folder)], check=False)
        shutil.rmtree(self.root, ignore_errors=True)

    def pid_of(self, service):
        return self.services()[service]["pid"]

    def told(self, code, path, *words):
        """Ends at once with this code, names the path, says what to do. The error."""
        began = time.monotonic()
        run = self.gpumod(*words, "--json")
        self.assertLess(time.monotonic() - began, 10, run)
        self.assertEqual(run.code, code, run)
        error = run.json["error"]
        self.assertIn(str(path), error["message"])
        self.assertTrue(error["hint"], error)
        self.assertEqual(run.json.get("switch", {}).get("result", "refused"), "refused", run)
        return error

    def test_a_full_runtime_directory_is_seen_before_anything_is_stopped(self):
        self.switch("mode-a")
        pid = self.pid_of("a")
        filler = fill(self.run_folder)
        error = self.told(7, self.run_folder, "mode", "switch", "mode-b")
        self.assertIn("no room in", error["message"])
        self.assertIn("0 bytes free", error["message"])
        self.assertIn("GPUMOD_RUNTIME_DIR", error["hint"])
        self.assertTrue(alive(pid))
        self.told(7, self.run_folder, "mode", "switch", "mode-b", "--dry-run")
        filler.unlink()
        self.switch("mode-b")

    def test_on_a_full_runtime_directory_a_service_ends_as_it_should(self):
        self.switch("mode-a")
        fill(self.run_folder)
        self.ok("service", "stop", "a")
        self.assertEqual(self.state_of("a"), "stopped", self.services()["a"])

    def test_a_supervisor_that_cannot_keep_its_state_starts_nothing(self):
        self.switch("mode-b")
        self.switch("mode-a")
        old = self.run_folder / "local/gpumod-b.service"
        log = (old / "log").read_text()
        self.assertIn("a word of b", log)
        self.mount(old, "size=64k,mode=700")
        (old / "lock").touch()
        (old / "log").write_text(log)
        fill(old)
        run = self.gpumod("mode", "switch", "mode-b")
        self.assertEqual(run.code, 1, run)
        self.assertIn(f"write {old}/state.json: No space left on device", run.err)
        self.assertIn("Make room there.", run.err)
        run = self.gpumod("mode", "switch", "mode-b", "--json")
        self.assertNotIn("a word of b", run.out + run.err, "that was said by an earlier run")
        self.assertFalse(listens(self.ports["b"]))
        self.assertEqual(self.state_of("a"), "running")
        subprocess.run(["umount", "-l", str(old)], check=True)

    def test_what_cannot_be_journaled_is_not_done_and_not_waited_for(self):
        self.switch("mode-a")
        pid = self.pid_of("a")
        filler = fill(self.state)
        for words in (("service", "stop", "a"), ("mode", "switch", "blank")):
            error = self.told(7, self.state / "state.db", *words)
            self.assertIn("database or disk is full", error["message"])
            self.assertIn("nothing was touched", error["message"])
            self.assertIn("GPUMOD_STATE_DIR", error["hint"])
            self.assertNotIn("SIGKILL", str(error))
        self.assertIn("no room in", self.told(7, self.state, "mode", "switch", "mode-b")["message"])
        self.assertTrue(alive(pid))
        self.assertEqual(self.status()["mode"], "mode-a")
        filler.unlink()
        self.ok("service", "stop", "a")
        self.assertFalse(alive(pid))

    def test_a_read_only_state_directory(self):
        self.switch("mode-a")
        pid = self.pid_of("a")
        self.remount(self.state, "ro")
        for words in (("mode", "switch", "blank"), ("service", "stop", "a"), ("repair",)):
            self.assertIn("GPUMOD_STATE_DIR", self.told(7, self.state, *words)["hint"])
        self.assertTrue(alive(pid))
        self.assertEqual(self.status()["mode"], "mode-a")
        self.remount(self.state, "rw")
        with contextlib.closing(sqlite3.connect(self.state / "state.db")) as database:
            database.execute("PRAGMA journal_mode = DELETE")
            database.execute("PRAGMA journal_mode = WAL")
        self.assertFalse((self.state / "state.db-wal").exists(), "closed well: SQLite would have to make it anew")
        self.remount(self.state, "ro")
        self.assertEqual(self.status()["mode"], "mode-a")

    def test_a_state_directory_that_cannot_be_made(self):
        self.env["GPUMOD_STATE_DIR"] = str(self.state / "below")
        self.remount(self.state, "ro")
        self.assertIn("GPUMOD_STATE_DIR", self.told(7, self.state / "below", "mode", "switch", "mode-a")["hint"])

    def test_a_read_only_runtime_directory(self):
        self.status()
        self.remount(self.run_folder, "ro")
        self.assertEqual(self.status()["mode"], None)
        self.assertIn("GPUMOD_RUNTIME_DIR", self.told(7, self.run_folder, "mode", "switch", "blank")["hint"])
        self.env["GPUMOD_RUNTIME_DIR"] = str(self.run_folder / "below")
        self.assertIn("GPUMOD_RUNTIME_DIR", self.told(7, self.run_folder / "below", "status")["hint"])
        self.env["GPUMOD_RUNTIME_DIR"] = str(self.run_folder)

    def test_a_file_where_the_state_directory_should_be(self):
        self.switch("mode-a")
        file = self.root / "file"
        file.touch()
        self.env["GPUMOD_STATE_DIR"] = str(file)
        for words in (("status",), ("history",), ("mode", "switch", "blank")):
            self.assertIn("GPUMOD_STATE_DIR", self.told(7, file, *words)["hint"])
        self.assertIn("cannot be read", self.told(7, file, "status")["message"])
        self.env["GPUMOD_STATE_DIR"] = str(self.state)


if __name__ == "__main__":
    unittest.main()
