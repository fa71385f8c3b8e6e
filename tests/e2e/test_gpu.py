"""Who holds the GPUs' memory: `gpu list|processes|watch` and `status --visual`, on two simulated GPUs of which one is in
slices, with services, orphans of every kind, and strangers."""
import fcntl
import json
import os
import pathlib
import pty
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import termios
import threading
import unittest

from harness import GPUMOD, MANAGER, SIM, SUPPORT, Case, free_port, until

BUILD = pathlib.Path(GPUMOD).resolve().parent.parent
NVML = BUILD / "lib/libgpumod-sim-nvml.so"
MIB = 2**20


class GpuCase(Case):
    def setUp(self):
        super().setUp()
        self.socket = self.root / "gpu.sock"
        self.env.update(GPUMOD_NVML_LIBRARY=str(NVML), GPUMOD_SIM_GPU=str(self.socket), LC_ALL="C.UTF-8")
        self.simulate("broker", "--socket", self.socket, "--gpu", "RTX 4090=24564MiB", "--gpu", "A100=40536MiB",
                      "--mig", "1:1g.10gb=9856MiB", "--mig", "1:2g.20gb=19968MiB", "--reserved", "348MiB")
        self.service("chat", 9000)
        self.service("tts", 3000)
        self.mode("code", "chat")
        self.mode("both", "chat", "tts")

    def service(self, name, mib, gpu="auto"):
        self.write(f"services/{name}.yaml", f"""
            engine: command
            gpu: {gpu}
            cmd: [{SIM}, desktop, --as, {name}, --list, compute, --holds, {mib}MiB]
            env: {{GPUMOD_SIM_GPU: {self.socket}}}
            check: none
            vram: {mib} MiB
            stop_timeout: 2s
            """)

    def ask_gpu(self, line):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.socket))
            connection.sendall(line.encode() + b"\n")
            return connection.recv(65536).decode().strip()

    def processes(self):
        return {line["pid"]: line for line in self.ok("gpu", "processes", "--json").json["processes"]}

    def by_command(self):
        return {line["command"]: line for line in self.processes().values()}

    def slice_uuid(self):
        return self.ok("gpu", "list", "--json").json["gpus"][1]["slices"][1]["uuid"]


class GpuCommands(GpuCase):
    def test_the_list_has_memory_and_slices(self):
        self.simulate("desktop", "--as", "trainer", "--list", "compute", "--holds", "5GiB",
                      CUDA_VISIBLE_DEVICES=self.slice_uuid())
        answer = self.ok("gpu", "list", "--json").json
        self.assertEqual(answer["driver"], "580.65.06")
        self.assertEqual(answer["missing"], [])
        first, second = answer["gpus"]
        self.assertEqual((first["index"], first["name"], first["persistence"], first["mig"]), (0, "RTX 4090", True, None))
        self.assertEqual([first[key] // MIB for key in ("total", "reserved", "used", "free")], [24564, 348, 0, 24216])
        self.assertTrue(second["mig"])
        self.assertEqual([line["used"] // MIB for line in second["slices"]], [0, 5120])
        text = self.ok("gpu", "list").out
        self.assertRegex(text, r"0  RTX 4090 +24564 MiB +348 MiB +0 MiB +24216 MiB +on")
        self.assertRegex(text, r"A100 MIG 2g.20gb +19968 MiB")
        self.ask_gpu("fault mig-unprivileged")
        self.assertIsNone(self.ok("gpu", "list", "--json").json["gpus"][1]["total"])
        self.assertIn("not available", self.ok("gpu", "list").out)

    def test_a_gpu_that_is_lost_is_named(self):
        self.ask_gpu("fault gpu-lost=1")
        answer = self.ok("gpu", "list", "--json").json
        self.assertEqual([gpu["index"] for gpu in answer["gpus"]], [0])
        self.assertIn("GPU is lost", answer["missing"][0]["problem"])
        self.ask_gpu("fault gpu-lost=0,1")
        run = self.gpumod("gpu", "list", "--json")
        self.assertEqual(run.code, 7, run)
        self.assertIn("GPU is lost", run.json["error"]["message"])

    def test_without_a_driver_there_is_a_sentence_and_exit_code_7(self):
        self.env["GPUMOD_NVML_LIBRARY"] = "/nonexistent/libnvidia-ml.so.1"
        for words in (("list",), ("processes",), ("watch",)):
            run = self.gpumod("gpu", *words, timeout=20)
            self.assertEqual(run.code, 7, run)
            self.assertIn("cannot load the NVIDIA management library", run.err)
            run = self.gpumod("gpu", *words, "--json", timeout=20)
            self.assertEqual((run.code, run.json["error"]["code"]), (7, "environment"), run)
        status = self.status()
        self.assertEqual(status["gpus"], [])
        self.assertIn("cannot load", status["gpu_problem"]["message"])
        self.assertIn("GPUs:", self.ok("status", "--visual").out)

    def test_processes_are_of_services_or_orphans_or_strangers(self):
        self.switch("code")
        state = self.root / "state"
        shutil.copytree(state, self.root / "earlier")
        self.switch("both")
        self.simulate("desktop", "--as", "evil\x1b[2J\x07", "--holds", "400MiB", "--list", "both")
        trainer = self.simulate("desktop", "--as", "trainer", "--list", "compute", "--holds", "5GiB",
                                CUDA_VISIBLE_DEVICES=self.slice_uuid())
        seen = self.by_command()
        self.assertEqual((seen["chat"]["holder"], seen["chat"]["services"]), ("managed", ["chat"]))
        self.assertEqual((seen["tts"]["holder"], seen["tts"]["used"]), ("managed", 3000 * MIB))
        line = self.processes()[trainer.pid]
        self.assertEqual((line["gpu"], line["slice"], line["holder"]), (1, self.slice_uuid(), "foreign"))
        self.assertEqual(line["used"], 5 * 1024 * MIB)
        evil = [name for name in seen if name.startswith("evil")][0]
        self.assertEqual(seen[evil]["used"], 400 * MIB, "listed twice, counted once")
        for words in (("gpu", "processes"), ("status",), ("status", "--visual"), ("gpu", "processes", "--json")):
            out = self.ok(*words).out
            self.assertIn("evil", out)
            self.assertNotRegex(out, r"[\x00-\x09\x0b-\x1f\x7f]", words)

        # No goal wants it any more.
        shutil.rmtree(state)
        shutil.copytree(self.root / "earlier", state)
        seen = self.by_command()
        self.assertEqual((seen["tts"]["holder"], seen["tts"]["why"]), ("orphan", "unwanted"))
        self.assertEqual(seen["chat"]["holder"], "managed")
        self.assertIn("tts (orphan: unwanted)", self.ok("gpu", "processes").out)
        # No file defines it any more.
        (self.config / "services/tts.yaml").unlink()
        (self.config / "modes/both.yaml").unlink()
        seen = self.by_command()
        self.assertEqual((seen["tts"]["holder"], seen["tts"]["why"]), ("orphan", "undefined"))
        # The driver does not say.
        self.ask_gpu("fault na-memory")
        self.assertIsNone(self.by_command()["chat"]["used"])
        self.assertRegex(self.ok("gpu", "processes").out, r"not available  chat ")

    def test_a_service_of_a_slice_is_planned_against_that_slice(self):
        slices = self.ok("gpu", "list", "--json").json["gpus"][1]["slices"]
        small, large = (part["uuid"] for part in slices)
        instance = slices[1]["gpu_instance"]
        index = 200 + instance
        self.service("sliced", 12000, large)
        self.mode("sliced", "sliced")
        plan = self.ok("mode", "switch", "sliced", "--dry-run", "--json").json["plan"]
        self.assertEqual([step["gpus"] for step in plan["steps"]], [[index]])
        self.assertEqual(plan["free"]["before"][str(index)] - plan["free"]["after"][str(index)], 12000 * MIB)
        self.assertIn(f"12000 MiB on GPU 1 instance {instance}", self.ok("mode", "switch", "sliced", "--dry-run").out)
        self.switch("sliced")
        line = self.by_command()["sliced"]
        self.assertEqual((line["gpu"], line["slice"], line["holder"]), (1, large, "managed"))
        self.switch("code")
        # The smaller one has no room for it, whatever the whole GPU has.
        self.service("sliced", 12000, small)
        run = self.gpumod("mode", "switch", "sliced", "--json")
        self.assertEqual((run.code, run.json["error"]["code"]), (3, "refused"), run)
        for whole in ("1", self.ok("gpu", "list", "--json").json["gpus"][1]["uuid"]):
            self.service("sliced", 12000, whole)
            run = self.gpumod("mode", "switch", "sliced", "--json")
            self.assertIn("cannot run on the whole of GPU 1: it is in MIG mode", run.json["error"]["message"])
            self.assertIn(large, run.json["error"]["hint"])
        self.assertEqual(self.state_of("chat"), "running")

    def test_a_vllm_that_wants_more_gpus_than_there_are_stops_nothing(self):
        self.switch("code")
        self.write("services/wide.yaml", f"""
            engine: vllm
            binary: {SIM}
            port: {free_port()}
            model: org/wide
            extra_args: [--pipeline-parallel-size=2]
            """)
        self.mode("wide", "wide")
        run = self.gpumod("mode", "switch", "wide", "--json")
        self.assertEqual((run.code, run.json["error"]["message"]),
                         (3, "service 'wide' wants 2 GPUs (pipeline parallel 2), this machine has 1"), run)
        self.assertIn("extra_args", run.json["error"]["hint"])
        self.assertEqual(self.state_of("chat"), "running")

    def test_the_status_says_of_each_process_what_the_ledger_says(self):
        self.switch("code")
        state = self.root / "state"
        shutil.copytree(state, self.root / "earlier")
        self.switch("both")
        shutil.rmtree(state)
        shutil.copytree(self.root / "earlier", state)  # no goal wants tts any more
        self.simulate("desktop", "--as", "firefox", "--holds", "400MiB")
        for gpu in self.status()["gpus"]:
            told = {process["pid"]: holder["holder"] for holder in gpu["ledger"]["holders"]
                    for process in holder["processes"]}
            self.assertEqual({process["pid"]: process["holder"] for process in gpu["processes"]}, told)
            if gpu["index"] == 0:
                self.assertEqual(sorted(told.values()), ["foreign", "managed", "orphan"])

    @unittest.skipUnless(MANAGER == "systemd", "under the local supervisor nothing gets out of its unit")
    def test_what_has_left_its_unit_is_an_orphan(self):
        self.switch("code")
        escaped = self.simulate("desktop", "--as", "runaway", "--holds", "1GiB", GPUMOD_SERVICE="chat")
        line = self.processes()[escaped.pid]
        self.assertEqual((line["holder"], line["why"], line["services"]), ("orphan", "escaped", ["chat"]))
        neighbour = self.simulate("desktop", "--as", "other", "--holds", "1GiB", GPUMOD_SERVICE="chat",
                                  GPUMOD_LOCAL="/somewhere/else")
        self.assertEqual(self.processes()[neighbour.pid]["holder"], "foreign")


    @unittest.skipUnless(MANAGER == "systemd", "a container's cgroup is made by systemd here")
    def test_a_containers_processes_are_of_the_service_that_declares_it(self):
        self.write("services/boxed.yaml", """
            engine: command
            cmd: [/bin/sleep, "1000"]
            container: box
            check: none
            vram: 2048 MiB
            stop_timeout: 2s
            """)
        self.mode("boxed", "boxed")
        self.mode("blank")
        self.switch("boxed")
        container = "0123456789abcdef" * 4
        scope = subprocess.Popen(["systemd-run", "--user", "--scope", "--quiet", f"--unit=docker-{container}.scope", str(SIM),
                                  "desktop", "--as", "contained", "--list", "compute", "--holds", "2GiB"],
                                 env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        self.addCleanup(scope.wait)
        self.addCleanup(scope.kill)
        self.addCleanup(scope.stdout.close)
        self.assertEqual(scope.stdout.readline(), "ready\n")
        with DockerStandIn(self.root / "docker.sock", "box", container):
            self.env["DOCKER_HOST"] = f"unix://{self.root}/docker.sock"
            line = self.by_command()["contained"]
            self.assertEqual((line["holder"], line["services"], line["used"]), ("managed", ["boxed"], 2048 * MIB))
            self.assertEqual(self.status()["gpus"][0]["ledger"]["managed"], 2048 * MIB)
            # It outlives its unit: that is no release, and it does not become a stranger's.
            self.write("gpumod.yaml", "release_timeout: 2s\n")
            run = self.gpumod("mode", "switch", "blank", "--json")
            self.assertEqual(run.code, 1, run)
            self.assertIn("the container of gpumod-boxed.service has outlived it", run.json["error"]["message"])
            line = self.by_command()["contained"]
            self.assertNotEqual(line["holder"], "foreign")
            self.assertEqual(line["services"], ["boxed"])
            self.assertEqual(self.status()["gpus"][0]["ledger"]["foreign"], 0)
        self.env["DOCKER_HOST"] = "unix:///nonexistent"
        self.assertEqual(self.by_command()["contained"]["holder"], "foreign", "nobody there to say whose it is")

    @unittest.skipUnless(MANAGER == "systemd", "a container's cgroup is made by systemd here")
    def test_what_a_container_takes_is_measured(self):
        container = "fedcba9876543210" * 4
        scope, said = f"docker-{container}.scope", self.root / "contained"
        self.addCleanup(subprocess.run, ["systemctl", "--user", "kill", "--signal=KILL", scope], env=self.env,
                        stderr=subprocess.DEVNULL)
        # What runs in a container has its own environment, without the mark of a service.
        script = (f"env -u GPUMOD_SERVICE systemd-run --user --scope --quiet --unit={scope} "
                  f"{SIM} desktop --as contained --list compute --holds 2GiB > {said} & until grep -q ready {said}; do sleep 0.05; done; "
                  f"exec python3 {SUPPORT}/toy_server.py --port ${{PORT}}")
        bus = {name: self.env[name] for name in ("XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS") if name in self.env}
        self.write("services/boxed.yaml", f"""
            engine: command
            cmd: {json.dumps(["/bin/sh", "-c", script])}
            env: {json.dumps({**bus, "GPUMOD_SIM_GPU": str(self.socket)})}
            container: box
            port: {free_port()}
            check: /health
            vram: 1024 MiB
            stop_timeout: 2s
            """)
        self.mode("boxed", "boxed")
        self.env["DOCKER_HOST"] = f"unix://{self.root}/docker.sock"
        with DockerStandIn(self.root / "docker.sock", "box", container):
            self.switch("boxed")
        memory = self.ok("service", "show", "boxed", "--json").json["service"]["memory"]
        self.assertEqual([entry["peak"] for entry in memory["measured"]], [2048 * MIB])
        self.assertIn("1024 MiB are declared, but it takes 2048 MiB (measured in 1 run)", memory["warnings"][0])


class DockerStandIn:
    """Knows one container, by the one question that is asked."""

    def __init__(self, path, name, container):
        self.question = f"GET /containers/{name}/json HTTP/1.0\r\n".encode()
        self.answer = b'HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n' + json.dumps({"Id": container}).encode()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.thread = threading.Thread(target=self.serve)

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.listener.close()

    def serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                asked = connection.recv(4096)
                connection.sendall(self.answer if asked.startswith(self.question) else b"HTTP/1.0 404 Not Found\r\n\r\n")


class Ledgers(GpuCase):
    def adds_up(self, ledger):
        self.assertEqual(ledger["reserved"] + ledger["managed"] + ledger["orphan"] + ledger["foreign"] +
                         ledger["unattributed"] + ledger["free"], ledger["total"] + ledger["overcounted"], ledger)

    def test_the_status_has_a_ledger_for_each_gpu(self):
        self.switch("code")
        self.simulate("desktop", "--as", "firefox", "--holds", "400MiB")
        self.simulate("desktop", "--as", "trainer", "--list", "compute", "--holds", "5GiB",
                      CUDA_VISIBLE_DEVICES=self.slice_uuid())
        first, second = (gpu["ledger"] for gpu in self.status()["gpus"])
        self.adds_up(first)
        self.assertEqual([first[key] // MIB for key in ("reserved", "managed", "orphan", "foreign", "unattributed")],
                         [348, 9000, 0, 400, 0])
        self.assertEqual([holder["name"] for holder in first["holders"]], ["chat", "firefox"])
        self.adds_up(second)
        for part in second["slices"]:
            self.adds_up(part)
        self.assertEqual([part["foreign"] // MIB for part in second["slices"]], [0, 5120])
        # Memory that comes back late is nobody's meanwhile.
        self.ask_gpu("curve 1h 0s unlisted")
        gone = self.simulate("desktop", "--as", "game", "--holds", "2GiB")
        gone.kill()
        gone.wait()
        ledger = until(lambda: next(line for line in [self.status()["gpus"][0]["ledger"]] if line["unattributed"]), 10)
        self.assertEqual(ledger["unattributed"] // MIB, 2048)
        self.adds_up(ledger)

    def test_the_picture_fits_its_screen(self):
        self.switch("code")
        self.simulate("desktop", "--as", "firefox", "--holds", "400MiB")
        for columns in (40, 61, 132):
            out = self.gpumod("status", "--visual", env=dict(self.env, COLUMNS=str(columns), LC_ALL="C")).out
            self.assertRegex(out, r"^[\n -~]+$")
            bars = re.findall(r"^  #+/+=+\.+$", out, re.MULTILINE)
            self.assertEqual([len(bar) for bar in bars], [columns - 1], out)
            self.assertIn("#   9000 MiB  chat", out)
            self.assertRegex(out, r"/ +400 MiB  firefox")
        self.assertIn("█", self.ok("status", "--visual").out)
        self.assertEqual(self.ok("status", "--visual", "--json").json["mode"], "code")


class Watching(GpuCase):
    def watch(self, *words, **kwargs):
        process = subprocess.Popen([GPUMOD, "gpu", "watch", *words], env=self.env, stdin=subprocess.DEVNULL, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kwargs)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def test_each_change_is_a_line(self):
        watch = self.watch("--json", "--interval", "0.1")
        first = json.loads(watch.stdout.readline())
        self.assertEqual(first["gpus"][0]["ledger"]["foreign"], 0)
        self.simulate("desktop", "--as", "firefox", "--holds", "400MiB")
        while True:  # also its allocation bit by bit is a change
            ledger = json.loads(watch.stdout.readline())["gpus"][0]["ledger"]
            if ledger["foreign"] == 400 * MIB:
                break
        # What the driver refuses for a while is told, and does not end it.
        self.ask_gpu("fault gpu-lost=0")
        self.assertIn("is lost", json.loads(watch.stdout.readline())["problem"]["message"])
        self.ask_gpu("clear gpu-lost")
        self.assertIn("gpus", json.loads(watch.stdout.readline()))
        watch.send_signal(signal.SIGINT)
        self.assertEqual((watch.wait(10), watch.stderr.read()), (0, ""))
        self.assertEqual(watch.stdout.read(), "")

    def test_without_a_terminal_it_is_plain_lines(self):
        watch = self.watch("--interval", "0.1")
        line = watch.stdout.readline()
        self.assertRegex(line, r"^20\d\d-\S+ [0-9:]+ [+-]\d\d:\d\d GPU 0: reserved 348 MiB, free 24216 MiB of 24564 MiB\n$")
        self.assertIn("GPU 1: ", watch.stdout.readline())
        watch.send_signal(signal.SIGTERM)
        self.assertEqual((watch.wait(10), watch.stderr.read()), (0, ""))

    def test_a_reader_that_goes_ends_it_although_nothing_changes(self):
        for words in ((), ("--json",)):
            reading, writing = os.pipe()
            watch = subprocess.Popen([GPUMOD, "gpu", "watch", *words], env=self.env, stdout=writing,
                                     stderr=subprocess.PIPE)
            self.addCleanup(watch.wait)
            self.addCleanup(watch.kill)
            os.close(writing)
            self.assertTrue(os.read(reading, 100))
            os.close(reading)
            self.assertEqual((watch.wait(10), watch.stderr.read()), (0, b""))
            watch.stderr.close()

    def test_a_reader_that_does_not_read_keeps_nobody_from_ending_it(self):
        self.simulate("desktop", "--as", "firefox", "--holds", "900MiB", "--noise", "300MiB", "--period", "100ms")
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        self.addCleanup(os.close, writing)
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
        watch = subprocess.Popen([GPUMOD, "gpu", "watch", "--json", "--interval", "0.1"], env=self.env, stdout=writing,
                                 stderr=subprocess.DEVNULL)
        self.addCleanup(watch.wait)
        self.addCleanup(watch.kill)
        until(lambda: not select.select([], [writing], [], 0)[1], 20, "a full pipe")
        watch.send_signal(signal.SIGTERM)
        self.assertEqual(watch.wait(10), 0)

    def test_an_interval_that_is_none_is_refused(self):
        for value in ("0", "0.01", "4000", "soon", "-1", "nan"):
            run = self.gpumod("gpu", "watch", f"--interval={value}", timeout=20)
            self.assertEqual(run.code, 2, run)
            self.assertIn("0.1 to 3600", run.err)

    def test_on_a_terminal_it_is_redrawn_in_place(self):
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 50, 0, 0))
        watch = subprocess.Popen([GPUMOD, "gpu", "watch", "--interval", "0.1", "--no-color"], stdin=slave, stdout=slave,
                                 stderr=slave, env=dict(self.env, TERM="xterm"), start_new_session=True)
        self.addCleanup(watch.wait)
        self.addCleanup(watch.kill)
        os.close(slave)
        seen = b""

        def read_until(words):
            nonlocal seen
            while words.encode() not in seen:
                self.assertTrue(select.select([master], [], [], 20)[0], seen.decode())
                seen += os.read(master, 65536)

        read_until("Ctrl-C ends this")
        read_until("MIG 2g.20gb")
        self.simulate("desktop", "--as", "firefox", "--holds", "400MiB")
        read_until("firefox")
        self.assertIn(b"\x1b[?25l", seen)
        watch.send_signal(signal.SIGINT)
        try:
            while data := os.read(master, 65536):
                seen += data
        except OSError:  # the other end is closed
            pass
        self.assertEqual(watch.wait(10), 0)
        os.close(master)
        words = seen.decode()
        last = words[words.rindex("\x1b[?25h"):]
        self.assertIn("firefox", last, "the last picture stays, with the cursor back")
        for line in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", words).splitlines():
            self.assertLess(len(line), 50, line)


if __name__ == "__main__":
    unittest.main()
