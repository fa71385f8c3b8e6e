"""A real llama-server and the simulated one, to be held beside each other: started alike, asked alike, noted alike.

What a server answers is noted as a shape: every key, the type of every value, and the values themselves where they are
words of the protocol or of the model (KEPT). What two servers can never share, such as ids and times, keeps its type.
"""
import contextlib
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import unittest

from harness import LLAMA, alive, free_port, until

HERE = pathlib.Path(__file__).resolve().parent
SIM = pathlib.Path(os.environ.get("GPUMOD_SIM", "/nonexistent"))

HELLO = [{"role": "user", "content": "Say OK."}]
CHAT = {"messages": HELLO, "max_tokens": 64, "temperature": 0}
ENDLESS = {"messages": HELLO, "max_tokens": 100000, "temperature": 0}

# Keys whose values, and not only their types, must be the same.
KEPT = {
    "content", "reasoning_content", "text", "finish_reason", "message", "type", "code", "object", "role", "status",
    "value", "failed", "exit_code", "success", "event", "aliases", "stop", "stop_type", "is_processing", "is_sleeping",
    "models_autoload", "max_instances", "source", "total_slots", "endpoint_slots", "endpoint_props", "endpoint_metrics",
    "completion_tokens", "predicted_n", "tokens_predicted", "index", "owned_by", "can_remove", "args", "preset", "stages",
    "current", "n_ctx", "n_ctx_train", "context_length", "has_new_line", "truncated", "max_tokens", "stream", "speculative",
    "name", "capabilities", "model", "model_alias", "model_path", "id_slot", "embedding_length",
}
# Words that say the same in other letters; the reasons are in test_sim_llama.DIFFERENCES.
ALIKE = [
    (re.compile(r"^(\[json\.exception\.parse_error\.101\]).*", re.S), r"\1 …"),
    (re.compile(r"request \(\d+ tokens\)"), "request (N tokens)"),
]


def shape(value, key=""):
    """The value, reduced to what both servers must share."""
    if isinstance(value, dict):
        return {name: shape(inner, name) for name, inner in sorted(value.items())}
    if isinstance(value, list):
        if key == "embedding" and value and not isinstance(value[0], list):
            return f"{len(value)} numbers"
        if value and all(isinstance(inner, (dict, list)) for inner in value):
            return [shape(inner, key) for inner in value]
        if key in KEPT:
            return [plain(inner) for inner in value]
        return f"list of {'/'.join(sorted({kind(inner) for inner in value})) or 'nothing'}"
    return plain(value) if key in KEPT else kind(value)


def kind(value):
    if isinstance(value, bool) or value is None:
        return str(value).lower() if value is None else "bool"
    return "number" if isinstance(value, (int, float)) else type(value).__name__


def plain(value):
    if isinstance(value, str):
        for pattern, word in ALIKE:
            value = pattern.sub(word, value)
    return value


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)

    def noted(self):
        """Status, content type and the shape of the body."""
        content_type = self.headers.get("Content-Type", "")
        if self.body.startswith("data: "):
            body = [event_shape(line) for line in self.body.split("\n\n") if line]
        elif content_type.startswith("application/json") and self.body[:1] in "{[":
            body = shape(self.json)
        elif content_type.startswith("text/plain; version"):
            body = metric_names(self.body)
        else:
            body = self.body
        return self.status, content_type, body


def event_shape(line):
    """One event of a stream; what a proxy appends to a broken one is no event."""
    if not line.startswith("data: "):
        return line
    data = line[len("data: "):]
    return shape(json.loads(data)) if data.startswith("{") else data


def metric_names(text):
    return sorted(line.split(" ", 3)[2:] for line in text.splitlines() if line.startswith("# TYPE "))


def ask(port, method, path, body=None, timeout=20, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        if body is not None and not isinstance(body, str):
            body = json.dumps(body)
        connection.request(method, path, body, headers or {})
        reply = connection.getresponse()
        return Answer(reply.status, dict(reply.getheaders()), reply.read().decode())
    finally:
        connection.close()


def is_listening(pid):
    """Whether the process has a TCP listener. Seen from outside: a question of ours could arrive just as it closes."""
    sockets = set()
    for entry in os.scandir(f"/proc/{pid}/fd"):
        try:
            sockets.add(os.readlink(entry.path))
        except FileNotFoundError:
            pass
    with open(f"/proc/{pid}/net/tcp") as table:
        rows = [line.split() for line in table.readlines()[1:]]
    return any(row[3] == "0A" and f"socket:[{row[9]}]" in sockets for row in rows)


class Pending:
    """A request that is on its way while the test goes on."""

    def __init__(self, port, path, body, timeout=60):
        self.answer = self.error = self.text = None
        self.thread = threading.Thread(target=self.run, args=(port, path, body, timeout), daemon=True)
        self.started = threading.Event()
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
        self.thread.start()
        self.started.wait(10)

    def run(self, port, path, body, timeout):
        received = b""
        try:
            self.connection.request("POST", path, json.dumps(body))
            self.socket = self.connection.sock  # the connection forgets it when the answer ends it
            self.started.set()
            reply = self.connection.getresponse()
            with contextlib.suppress(http.client.IncompleteRead):
                while piece := reply.read1(65536):
                    received += piece
            self.answer = Answer(reply.status, dict(reply.getheaders()), received.decode())
        except (OSError, http.client.HTTPException) as error:
            self.error = type(error).__name__

    def leave(self):
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def wait(self, seconds=30):
        self.thread.join(seconds)
        return self.answer


class Listener:
    """What /models/sse tells, as it comes."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self.connection.request("GET", "/models/sse")
        self.reply = self.connection.getresponse()
        self.events = []
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            while line := self.reply.readline():
                if line.startswith(b"data: "):
                    self.events.append(json.loads(line[len("data: "):]))

    def close(self):
        with contextlib.suppress(OSError):
            self.connection.sock.shutdown(socket.SHUT_RDWR)
        self.thread.join(5)


class Program:
    """One of the two llama-servers, started with some arguments."""

    def __init__(self, binary, folder, *arguments, env=None, ready=True, port=None):
        self.binary, self.folder = str(binary), folder
        self.port = port or free_port()
        self.log_path = folder / f"log-{self.port}"
        self.argv = [self.binary, *map(str, arguments), "--port", str(self.port), "--offline"]
        with open(self.log_path, "w") as log:
            self.process = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder,
                env=dict(os.environ, GGML_NO_BACKTRACE="1", **(env or {})))
        if ready:
            until(self.is_ready, what=f"readiness of {' '.join(self.argv)}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        children = self.children()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)

    def is_ready(self):
        if self.process.poll() is not None:
            raise AssertionError(f"it ended with {self.process.returncode}: {self.log()}")
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.ask("GET", "/health").status == 200

    def ask(self, method, path, body=None, **kwargs):
        return ask(self.port, method, path, body, **kwargs)

    def listens(self):
        with contextlib.closing(socket.socket()) as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def log(self):
        return self.log_path.read_text()

    def errors(self):
        """The error lines, without times, a child's port and the folder."""
        lines = [re.sub(r"^(\[\d+\] )?[\d.]+ ", "", line) for line in self.log().splitlines()]
        return [line.replace(str(self.port), "PORT") for line in lines if line.startswith("E ")]

    def signal(self, number):
        self.process.send_signal(number)

    def exit_code(self, seconds=20):
        return self.process.wait(seconds)

    def stays(self, seconds=0.7):
        """True when it is still there after this time."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
            return False
        return True

    def children(self):
        pids = []
        for thread in pathlib.Path(f"/proc/{self.process.pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                pids += [int(pid) for pid in thread.read_text().split()]
        return pids

    # ---- a router's models ----

    def models(self):
        return {entry["id"]: entry for entry in self.ask("GET", "/models").json["data"]}

    def status(self, name):
        """("unloaded", failed, exit code)"""
        status = self.models()[name]["status"]
        return status["value"], status.get("failed"), status.get("exit_code")

    def child(self, name):
        for pid in self.children():
            with contextlib.suppress(OSError):
                words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
                if "--alias" in words and words[words.index("--alias") + 1] == name:
                    return pid
        return None

    def until_status(self, name, value, timeout=20):
        """The states on the way there."""
        seen = []

        def arrived():
            now = self.status(name)
            if not seen or seen[-1] != now:
                seen.append(now)
            return now[0] == value

        until(arrived, timeout, f"'{name}' {value}, after {seen}")
        return seen

    def load(self, name):
        answer = self.ask("POST", "/models/load", {"model": name})
        self.until_status(name, "loaded")
        return answer.noted()


def make_model(kind_of_model, path, *options):
    subprocess.run([sys.executable, str(HERE.parent / "support/make_gguf.py"), kind_of_model, str(path), *options], check=True)


def real(folder, *arguments, **kwargs):
    # One thread: the tests run beside others on few cores, and this one spins.
    return Program(LLAMA, folder, *arguments, "-t", "1", **kwargs)


def simulated(folder, *arguments, **kwargs):
    link = folder / "llama-server"
    with contextlib.suppress(FileExistsError):
        link.symlink_to(SIM)
    return Program(link, folder, *arguments, "-t", "1", **kwargs)


def is_gone(pids, timeout=10):
    until(lambda: not any(alive(pid) for pid in pids), timeout, f"the end of {pids}")
    return True


def make_models(models):
    """Tiny models, and beside each what the simulated server is to know of it."""
    models.mkdir()

    def model(name, kind_of_model, *options, sim, load="200ms", context=512):
        make_model(kind_of_model, models / f"{name}.gguf", *options, "--ctx", str(context))
        (models / f"{name}.sim").write_text(f"load={load}\ncontext={context}\n{sim}")

    model("alpha", "script", "--text", "Hello from alpha.", sim="answer=Hello from alpha.\n")
    model("thinker", "script", "--think", "Let me see what that could be.", "--text", "The answer is four.",
          sim="think=Let me see what that could be.\nanswer=The answer is four.\n")
    model("embed", "embed", "--dim", "48", sim="dims=48\n")
    model("bad", "bad", sim="fault=bad-model\n")
    model("long", "chat", sim="loop=yes\n", context=131072)
    # Large, so that the real one can be met while it loads.
    model("large", "script", "--text", " ".join(f"w{i}x" for i in range(1600)), sim="", load="1s", context=8192)


class Pair(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="gpumod-sim-llama-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        make_models(cls.folder / "models")
        (cls.folder / "junk.gguf").write_text("JUNK" * 100)

    def link(self):
        """The simulated program, by the name that makes it a llama-server."""
        link = self.folder / "llama-server"
        with contextlib.suppress(FileExistsError):
            link.symlink_to(SIM)
        return link

    def both(self, story):
        """Tells the story to both servers; what they noted must be the same, note by note."""
        notes = []
        for start in (real, simulated):
            noted = {}
            story(lambda *arguments, **kwargs: start(self.folder, *arguments, **kwargs), noted)
            notes.append(noted)
        self.assertEqual(list(notes[0]), list(notes[1]))
        self.assertGreater(len(notes[0]), 0)
        for label, said in notes[0].items():
            with self.subTest(label):
                self.assertEqual(said, notes[1][label])

    def ask_all(self, server, noted, questions, prefix="", headers=None):
        for method, path, *body in questions:
            answer = server.ask(method, path, *body, headers=headers)
            noted[f"{len(noted)}. {prefix}{method} {path} {str(body)[:200]}"] = answer.noted()


def main():
    missing = [str(program) for program in (LLAMA, SIM) if not program.exists()]
    if missing:
        print(f"{'=' * 70}\nNO llama-server at {' and '.join(missing)}: the simulated one is compared with nothing.\n"
              f"These tests are SKIPPED: they prove nothing here.\n{'=' * 70}", file=sys.stderr)
        sys.exit(77)
    unittest.main(verbosity=2)
