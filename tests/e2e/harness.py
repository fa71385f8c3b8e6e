"""What the end-to-end tests share: a private gpumod, ports nobody uses, and the real llama-server.

Every test gets directories of its own under a temporary one, so nothing of the person who runs the tests is touched.
GPUMOD_E2E_MANAGER says which unit manager the services run under: systemd (the tests are then started through
user-systemd.sh) or local.
"""
import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import textwrap
import time
import unittest
import urllib.request

GPUMOD = os.environ["GPUMOD_BINARY"]
SIM = pathlib.Path(GPUMOD).resolve().parent / "gpumod-sim"
MANAGER = os.environ.get("GPUMOD_E2E_MANAGER", "systemd")
CACHE = pathlib.Path(os.environ.get("GPUMOD_TEST_CACHE", ""))
LLAMA = CACHE / "llama/bin/llama-server"
MODELS = CACHE / "models"
SUPPORT = pathlib.Path(__file__).resolve().parent / "support"

needs_llama = unittest.skipUnless(LLAMA.exists(), f"no llama-server at {LLAMA}: tests/e2e/prepare.sh could not fetch one")
needs_systemd = unittest.skipUnless(MANAGER == "systemd", "adopted units exist only under systemd")

_handed_out = set()


def free_port():
    """A port nobody listens on now; never the same twice in one run."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if port not in _handed_out:
            _handed_out.add(port)
            return port


def until(condition, timeout=20.0, what="the condition"):
    """Waits for something that signals nothing; fails loudly."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"{what} did not come about within {timeout} s")


class Run:
    def __init__(self, completed):
        self.code = completed.returncode
        self.out = completed.stdout
        self.err = completed.stderr

    @property
    def json(self):
        return json.loads(self.out)

    def __repr__(self):
        return f"exit {self.code}\nstdout: {self.out}\nstderr: {self.err}"


class Case(unittest.TestCase):
    """One private gpumod."""

    maxDiff = None

    def setUp(self):
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="gpumod-e2e-"))
        self.config = self.root / "config"
        for sub in ("services", "modes"):
            (self.config / sub).mkdir(parents=True)
        self.env = dict(
            os.environ,
            GPUMOD_CONFIG_DIR=str(self.config),
            GPUMOD_STATE_DIR=str(self.root / "state"),
            GPUMOD_CACHE_DIR=str(self.root / "cache"),
            GPUMOD_RUNTIME_DIR=str(self.root / "run"),
            GPUMOD_UNIT_MANAGER=MANAGER,
            GPUMOD_NVML_LIBRARY="/nonexistent/libnvidia-ml.so.1",
            PYTHONUNBUFFERED="1",
        )
        if LLAMA.exists():
            self.write("gpumod.yaml", f"""
                engines:
                  llamacpp:
                    binary: {LLAMA}
                    env: {{GGML_NO_BACKTRACE: "1"}}
                """)
        self.addCleanup(self.tear_down_services)

    def tear_down_services(self):
        # Whatever a test left running is of this test's private directories: stop it through the product itself.
        self.write("modes/zz-nothing.yaml", "id: zz-nothing\nservices: []\n")
        for _ in range(20):
            run = self.gpumod("mode", "switch", "zz-nothing", timeout=90)
            if run.code != 5:
                break
            time.sleep(0.25)
        shutil.rmtree(self.root, ignore_errors=True)

    def write(self, path, text, mode=0o600):
        target = self.config / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(textwrap.dedent(text))
        target.chmod(mode)
        return target

    def gpumod(self, *words, timeout=60, env=None):
        return Run(subprocess.run([GPUMOD, *map(str, words)], env=env or self.env, text=True, capture_output=True,
                                  timeout=timeout, stdin=subprocess.DEVNULL, cwd=self.root))

    def ok(self, *words, timeout=60):
        run = self.gpumod(*words, timeout=timeout)
        self.assertEqual(run.code, 0, f"gpumod {' '.join(map(str, words))}: {run}")
        return run

    def switch(self, mode, timeout=60):
        """Switches and returns the `switch` object of a committed or unchanged one."""
        run = self.ok("mode", "switch", mode, "--json", timeout=timeout)
        return run.json["switch"]

    def start_gpumod(self, *words, **kwargs):
        return subprocess.Popen([GPUMOD, *map(str, words)], env=self.env, text=True, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kwargs)

    def state_of(self, service):
        return self.services()[service]["state"]

    def services(self):
        return {line["id"]: line for line in self.ok("service", "list", "--json").json["services"]}

    def status(self):
        return self.ok("status", "--json").json

    # ---- a simulated GPU ----

    def simulate(self, *words, **env):
        """A process of gpumod-sim that lives as long as the test: a broker, or somebody who holds memory."""
        process = subprocess.Popen([SIM, *map(str, words)], env=dict(self.env, **env),
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.assertEqual(process.stdout.readline(), "ready\n", words)
        process.stdout.close()
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        # Services are stopped before the GPU goes: what was added last is done first.
        self.addCleanup(self.tear_down_services)
        return process

    # ---- services to manage ----

    def toy(self, name, port, *options, probe="", extra=""):
        """A service that runs tests/e2e/support/toy_server.py with these options."""
        command = json.dumps(["/usr/bin/python3", str(SUPPORT / "toy_server.py"), "--port", "${PORT}", *map(str, options)])
        lines = [f"id: {name}", "engine: command", f"port: {port}", f"cmd: {command}", "check: /health", "vram: 0",
                 "startup_timeout: 15s", "stop_timeout: 2s"]
        if probe:
            lines.append(f"probe: {probe}")
        if extra:
            lines.append(textwrap.dedent(extra).strip())
        self.write(f"services/{name}.yaml", "\n".join(lines) + "\n")

    def mode(self, name, *services, **fields):
        lines = [f"id: {name}", f"services: [{', '.join(services)}]"]
        lines += [f"{key}: {value}" for key, value in fields.items()]
        self.write(f"modes/{name}.yaml", "\n".join(lines) + "\n")


def post(port, path, body, timeout=20):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        return json.load(answer)


def get(port, path, timeout=5):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=timeout) as answer:
        return answer.read().decode()


def chat(port, model, max_tokens=40):
    """The message of the first choice, reasoning included."""
    answer = post(port, "/v1/chat/completions",
                  {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": max_tokens, "temperature": 0})
    return answer["choices"][0]["message"]


def listens(port):
    with contextlib.closing(socket.socket()) as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def kill(pid, number=signal.SIGKILL):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
