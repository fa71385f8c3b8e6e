"""The simulated llama-server beside the real one: the router and its children. See test_sim_llama.py."""
import json
import os
import re
import signal
import time

from harness import alive, until
from llama_pair import CHAT, ENDLESS, Listener, Pair, Pending, is_gone, is_listening, main, shape


def chat(model, **more):
    return dict(CHAT, model=model, **more)


class Router(Pair):
    def args_of(self, server, name):
        """What the child is started with; the program, the port and the folder are each server's own."""
        args = server.models()[name]["status"]["args"]
        args[args.index("--port") + 1] = "PORT"
        return [word.replace(str(self.folder), "FOLDER") for word in args[1:]]

    def test_a_conversation(self):
        def story(start, noted):
            with start("--models-dir", "models", "--models-max", "2", "--no-models-autoload") as server:
                self.ask_all(server, noted, [
                    ("GET", "/health"), ("GET", "/v1/health"), ("GET", "/props"), ("GET", "/slots"), ("GET", "/metrics"),
                    ("GET", "/nowhere"), ("GET", "/"), ("GET", "/lora-adapters"),
                    ("POST", "/models/load", {"model": "nope"}), ("POST", "/models/load", {}), ("POST", "/models/load", "{no"),
                    ("POST", "/models/unload", {"model": "nope"}), ("POST", "/models/unload", {}),
                    ("POST", "/models/unload", {"model": "alpha"}), ("POST", "/models/unload", "{no"),
                    ("GET", "/models/load"), ("DELETE", "/props"),
                    ("POST", "/v1/chat/completions", CHAT), ("POST", "/v1/chat/completions", chat("alpha")),
                    ("POST", "/v1/chat/completions", chat("nope")), ("POST", "/v1/chat/completions", ""),
                    ("GET", "/props?model=alpha"), ("GET", "/props?model=nope"), ("GET", "/slots?model=alpha"),
                ])
                for path in ("/models", "/v1/models", "/models?reload=1"):
                    noted[path] = [entry_shape(entry) for entry in server.ask("GET", path).json["data"]]
                noted["load"] = server.load("thinker")
                self.ask_all(server, noted, [
                    ("POST", "/models/load", {"model": "thinker"}),
                    ("POST", "/v1/chat/completions", chat("thinker")),
                    ("POST", "/v1/chat/completions", chat("thinker", stream=True)),
                    ("POST", "/v1/completions", {"model": "thinker", "prompt": "x", "max_tokens": 3}),
                    ("POST", "/completion", {"model": "thinker", "prompt": "x", "n_predict": 3}),
                    ("POST", "/v1/embeddings", {"model": "thinker", "input": "x"}),
                    ("POST", "/tokenize", {"model": "thinker", "content": "x"}),
                    ("GET", "/props?model=thinker"), ("GET", "/metrics?model=thinker"), ("GET", "/lora-adapters?model=thinker"),
                ])
                noted["loaded"] = entry_shape(server.models()["thinker"])
                child = server.child("thinker")
                with open(f"/proc/{child}/environ", "rb") as environment:
                    noted["the child knows its router"] = (
                        f"LLAMA_SERVER_ROUTER_PORT={server.port}".encode() in environment.read().split(b"\0"))
                noted["unload"] = server.ask("POST", "/models/unload", {"model": "thinker"}).noted()
                server.until_status("thinker", "unloaded")
                noted["unloaded"] = server.status("thinker")
                noted["its process is gone"] = is_gone([child])
        self.both(story)

    def test_what_children_are_started_with(self):
        (self.folder / "preset.ini").write_text(PRESET.replace("FOLDER", str(self.folder)))

        def story(start, noted):
            with start("--models-dir", "models", "--models-preset", "preset.ini", "-c", "99", "--no-warmup", "-np", "2",
                       "--no-mmproj", "--jinja", "--fit", "off", "-ngl", "5", "--no-models-autoload") as server:
                noted["names"] = list(server.models())
                for name, entry in server.models().items():
                    noted[f"args of {name}"] = self.args_of(server, name)
                    noted[f"preset of {name}"] = entry["status"]["preset"].replace(str(self.folder), "FOLDER")
                    noted[f"source of {name}"] = (entry["source"], entry["aliases"], entry.get("context_length"))
                server.until_status("alpha", "loaded")  # on startup
                noted["by its alias"] = server.ask("POST", "/models/load", {"model": "gast"}).noted()
                server.until_status("guest", "loaded")
                noted["asked by its alias"] = server.ask("POST", "/v1/chat/completions", chat("gast")).noted()
                noted["context"] = server.ask("GET", "/props?model=guest").json["default_generation_settings"]["n_ctx"]
        self.both(story)

    def test_presets_that_are_wrong(self):
        def story(start, noted):
            for text in ("version = 1\n[alpha]\nnonsense = 1\n", "version = 1\nnonsense\n", "[alpha]\nc = 64\n"):
                (self.folder / "wrong.ini").write_text(text)
                with start("--models-dir", "models", "--models-preset", "wrong.ini", ready=False) as server:
                    until(lambda: server.process.poll() is not None or server.listens(), what="an end or a listener")
                    noted[text] = (server.process.poll(), server.errors())
            for words in (["--models-dir", "/nonexistent"], ["--models-preset", "/nonexistent"]):
                with start(*words, ready=False) as server:
                    noted[str(words)] = (server.exit_code(), server.errors())
        self.both(story)

    def test_a_load_as_events(self):
        def story(start, noted):
            (self.folder / "sleepy.ini").write_text("version = 1\n[embed]\nembeddings = 1\nsleep-idle-seconds = 1\n")
            with start("--models-dir", "models", "--models-preset", "sleepy.ini", "--no-models-autoload") as server:
                listener = Listener(server.port)
                noted["stream"] = listener.reply.getheader("Content-Type")
                server.load("embed")
                noted["states"] = server.until_status("embed", "sleeping")[-1]
                noted["asleep it is running"] = server.ask("POST", "/models/load", {"model": "embed"}).noted()
                for path in ("/props?model=embed", "/models", "/health"):
                    noted[f"{path} does not wake"] = server.ask("GET", path).status, server.status("embed")
                question = {"model": "embed", "input": "x"}
                noted["a question wakes"] = server.ask("POST", "/v1/embeddings", question).noted(), server.status("embed")
                server.ask("POST", "/models/unload", {"model": "embed"})
                server.until_status("embed", "unloaded")
                server.ask("POST", "/models/load", {"model": "bad"})
                server.until_status("bad", "unloaded")
                time.sleep(0.3)  # what the listener has not heard yet
                listener.close()
                noted["events"] = [shape(event) for event in listener.events if not is_half_way(event)]
        self.both(story)

    def test_loads_that_fail(self):
        def story(start, noted):
            with start("--models-dir", "models", "--no-models-autoload") as server:
                server.ask("POST", "/models/load", {"model": "bad"})
                until(lambda: server.status("bad")[0] == "unloaded", what="the end of the load")
                noted["failed"] = server.status("bad")
                noted["asked"] = server.ask("POST", "/v1/chat/completions", chat("bad")).noted()
                noted["cause"] = [line for line in server.errors() if "error loading model" in line][0]
                server.ask("GET", "/models?reload=1")
                noted["forgotten"] = server.status("bad")
                server.ask("POST", "/models/load", {"model": "large"})
                noted["loading"] = server.status("large")
                noted["unload"] = server.ask("POST", "/models/unload", {"model": "large"}).noted()
                server.until_status("large", "unloaded")
                noted["killed"] = server.status("large")
        self.both(story)

    def test_while_it_loads(self):
        def story(start, noted):
            with start("--models-dir", "models", "--no-models-autoload") as server:
                for _ in range(8):
                    server.ask("POST", "/models/load", {"model": "large"})
                    seen = []
                    while server.status("large")[0] == "loading":
                        answer = server.ask("POST", "/v1/chat/completions", chat("large", max_tokens=1))
                        seen.append(answer.noted()[:2] + (re.sub(r'"code":503,|,"code":503', "", answer.body),))
                    if met := [entry for entry in seen if entry[0] == 503]:
                        noted["while it loads"] = met[0][:2]
                        noted["nothing else"] = {entry[0] for entry in seen} - {500, 503, 200}
                        return
                    server.ask("POST", "/models/unload", {"model": "large"})
                    server.until_status("large", "unloaded")
                self.fail("it was never met while it loaded")
        self.both(story)

    def test_the_longest_unused_goes_first(self):
        def story(start, noted):
            with start("--models-dir", "models", "--models-max", "2", "--no-models-autoload") as server:
                server.load("alpha")
                server.load("thinker")
                server.ask("POST", "/v1/chat/completions", chat("alpha"))
                thinker = server.child("thinker")
                noted["a third"] = server.ask("POST", "/models/load", {"model": "embed"}).noted()
                noted["the first is gone before the answer"] = alive(thinker)
                server.until_status("embed", "loaded")
                noted["who is there"] = sorted(name for name in server.models() if server.status(name)[0] == "loaded")
        self.both(story)

    def test_a_busy_model_is_not_evicted(self):
        def story(start, noted):
            with start("--models-dir", "models", "--models-max", "1", "--no-models-autoload") as server:
                server.load("long")
                pending = Pending(server.port, "/v1/chat/completions", dict(ENDLESS, model="long", stream=True))
                until(lambda: server.ask("GET", "/slots?model=long").json[0]["is_processing"], what="a busy slot")
                noted["refused"] = server.ask("POST", "/models/load", {"model": "alpha"}).noted()
                pending.leave()
                until(lambda: not server.ask("GET", "/slots?model=long").json[0]["is_processing"], what="a free slot")
                noted["then"] = server.load("alpha")
        self.both(story)

    def test_questions_load_their_model(self):
        def story(start, noted):
            with start("--models-dir", "models", "--models-max", "1") as server:
                self.ask_all(server, noted, [
                    ("GET", "/props"),
                    ("POST", "/v1/chat/completions", chat("alpha")), ("POST", "/v1/chat/completions", chat("bad")),
                    ("POST", "/v1/chat/completions", chat("nope")), ("GET", "/props?model=thinker"),
                    ("POST", "/v1/chat/completions?autoload=false", chat("alpha")),
                ])
                noted["evicted even for the bad one"] = server.status("alpha"), server.status("bad")
                # It waits until the busy one is idle, however long that takes.
                busy = dict(ENDLESS, model="long", max_tokens=1500)
                pending = Pending(server.port, "/v1/chat/completions", busy)
                until(lambda: server.status("long")[0] == "loaded", what="the busy one")
                noted["patient"] = server.ask("POST", "/v1/chat/completions", chat("alpha"), timeout=60).noted()
                noted["the busy one had its answer"] = pending.wait().status
                noted["and is gone"] = server.status("long")
        self.both(story)

    def test_new_files_and_lost_ones(self):
        def story(start, noted):
            new = self.folder / "models/new.gguf"
            with start("--models-dir", "models", "--no-models-autoload") as server:
                new.write_bytes((self.folder / "models/alpha.gguf").read_bytes())
                noted["not yet"] = "new" in server.models()
                server.ask("GET", "/models?reload=1")
                noted["now"] = server.status("new")
                new.unlink()
                server.ask("GET", "/models?reload=1")
                noted["gone"] = "new" in server.models()
        self.both(story)

    def test_keys(self):
        def story(start, noted):
            with start("--models-dir", "models", "--api-key", "one") as server:
                for headers in ({}, {"Authorization": "Bearer one"}):
                    self.ask_all(server, noted, [
                        ("GET", "/health"), ("GET", "/props"), ("POST", "/models/load", {"model": "nope"}),
                        ("POST", "/v1/chat/completions", chat("alpha")), ("GET", "/models/sse" if not headers else "/health"),
                    ], prefix=f"{headers}: ", headers=headers)
                with open(f"/proc/{server.child('alpha')}/environ", "rb") as environment:
                    noted["children are not told the key"] = b"one" in environment.read().split(b"\0LLAMA_API_KEY=")[-1:]
        self.both(story)


class Ends(Pair):
    """Ends of routers and of their children, clean ones and others."""

    def busy_long(self, server, **more):
        server.load("long")
        pending = Pending(server.port, "/v1/chat/completions", dict(ENDLESS, model="long", **more))
        until(lambda: server.ask("GET", "/slots?model=long").json[0]["is_processing"], what="a busy slot")
        return pending

    def test_unloading_a_busy_model(self):
        (self.folder / "stop.ini").write_text("version = 1\n[long]\nstop-timeout = 2\n")

        def story(start, noted):
            with start("--models-dir", "models", "--models-preset", "stop.ini", "--no-models-autoload") as server:
                pending = self.busy_long(server)
                child = server.child("long")
                began = time.monotonic()
                for attempt in ("first", "second"):
                    noted[f"{attempt} unload"] = server.ask("POST", "/models/unload", {"model": "long"}).noted()
                noted["still loaded"] = server.status("long")
                until(lambda: not is_listening(child), what="its closed listener")
                noted["asked meanwhile"] = server.ask("POST", "/v1/chat/completions", chat("long")).noted()
                noted["loaded meanwhile"] = server.ask("POST", "/models/load", {"model": "long"}).noted()
                noted["health"] = server.ask("GET", "/health").noted()
                server.until_status("long", "unloaded")
                noted["killed after its stop-timeout"] = server.status("long"), 1.5 < time.monotonic() - began < 9
                noted["its process is gone"] = is_gone([child])
                noted["no answer"] = pending.wait().noted()
        self.both(story)

    def test_a_stream_that_is_cut(self):
        """Whether a streaming process stays until it is killed or ends at once is a race in the real one; not the rest."""
        (self.folder / "stop.ini").write_text("version = 1\n[long]\nstop-timeout = 1\n")

        def story(start, noted):
            with start("--models-dir", "models", "--models-preset", "stop.ini", "--no-models-autoload") as server:
                pending = self.busy_long(server, stream=True)
                noted["unload"] = server.ask("POST", "/models/unload", {"model": "long"}).noted()
                server.until_status("long", "unloaded")
                noted["an end of one of two kinds"] = server.status("long") in (
                    ("unloaded", None, None), ("unloaded", True, 1))
                answer = pending.wait()
                noted["stream"] = answer.status, answer.headers["Content-Type"], answer.body.split("\n\n")[-1]
        self.both(story)

    def test_a_child_that_is_killed(self):
        def story(start, noted):
            with start("--models-dir", "models", "--no-models-autoload") as server:
                server.load("alpha")
                os.kill(server.child("alpha"), signal.SIGKILL)
                server.until_status("alpha", "unloaded")
                noted["failed"] = server.status("alpha")
                noted["asked"] = server.ask("POST", "/v1/chat/completions", chat("alpha")).noted()
                noted["loaded again"] = server.load("alpha")
        self.both(story)

    def test_a_child_that_is_told_to_end_by_somebody_else(self):
        def story(start, noted):
            with start("--models-dir", "models", "--no-models-autoload") as server:
                server.load("alpha")
                child = server.child("alpha")
                os.kill(child, signal.SIGTERM)
                until(lambda: not is_listening(child), what="its closed listener")
                noted["asked"] = server.ask("POST", "/v1/chat/completions", chat("alpha")).noted()
                noted["it stays"] = alive(child), server.status("alpha")
                noted["health"] = server.ask("GET", "/health").noted()
                noted["unload"] = server.ask("POST", "/models/unload", {"model": "alpha"}).noted()
                server.until_status("alpha", "unloaded")
                noted["a clean end"] = server.status("alpha")
        self.both(story)

    def test_of_an_idle_router(self):
        def story(start, noted):
            for number in (signal.SIGTERM, signal.SIGINT):
                with start("--models-dir", "models", "--no-models-autoload") as server:
                    server.load("alpha")
                    server.load("thinker")
                    children = server.children()
                    server.signal(number)
                    noted[f"{number.name}"] = server.exit_code()
                    noted[f"{number.name}: its children are gone"] = is_gone(children)
        self.both(story)

    def test_of_a_router_while_a_model_loads(self):
        def story(start, noted):
            with start("--models-dir", "models", "--no-models-autoload") as server:
                server.ask("POST", "/models/load", {"model": "large"})
                children = server.children()
                server.signal(signal.SIGTERM)
                noted["exit"] = server.exit_code()
                noted["its child is gone"] = len(children), is_gone(children)
        self.both(story)

    def test_of_a_busy_router(self):
        def story(start, noted):
            with start("--models-dir", "models", "--no-models-autoload") as server:
                pending = self.busy_long(server)
                children = server.children()
                server.signal(signal.SIGTERM)
                until(lambda: not server.listens(), what="the listener's end")
                noted["it stays, and so does its child"] = server.stays(), alive(children[0])
                server.signal(signal.SIGTERM)
                noted["the second signal ends it"] = server.exit_code()
                noted["no answer"] = pending.wait(), pending.error
                noted["its child follows"] = is_gone(children)
            with start("--models-dir", "models", "--no-models-autoload") as server:
                self.busy_long(server, max_tokens=2500)
                children = server.children()
                server.signal(signal.SIGTERM)
                noted["it waits for its requests"] = server.exit_code(60)
                noted["and its child is gone"] = is_gone(children)
        self.both(story)

    def test_children_of_a_killed_router_follow(self):
        def story(start, noted):
            with start("--models-dir", "models", "--no-models-autoload") as server:
                server.load("alpha")
                children = server.children()
                server.signal(signal.SIGKILL)
                server.exit_code()
                noted["gone"] = len(children), is_gone(children)
        self.both(story)


PRESET = """version = 1
; a comment
[*]
ctx-size = 128
stop-timeout = 2

[alpha]
n-gpu-layers = 0   # zero
load-on-startup = true

[guest]
model = FOLDER/models/thinker.gguf
alias = gast
threads-batch = 3

[embed]
embeddings = true
LLAMA_ARG_POOLING = mean
kvo = false
"""


def entry_shape(entry):
    """A model as /models lists it; the program and the port are each server's own."""
    entry = json.loads(json.dumps(entry))
    args = entry["status"]["args"]
    args[0] = "PROGRAM"
    args[args.index("--port") + 1] = "PORT" if args[args.index("--port") + 1] != "0" else "0"
    return shape(entry)


def is_half_way(event):
    """Progress between beginning and end: how often it is told depends on the size of a file."""
    return 0 < event["data"].get("progress", {}).get("value", 0) < 1


if __name__ == "__main__":
    main()
