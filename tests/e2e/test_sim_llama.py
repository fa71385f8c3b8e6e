"""The simulated llama-server beside the real one: one model's server. See test_sim_llama_router.py for the router.

Each case tells one story to both servers and notes what it sees: status codes, content types, the keys and the types of
every answer, error messages, the order of states and events, exit codes; the model's words must be the same letter for
letter. The real one has tiny models that answer exactly what the .sim files beside them tell the simulated one.
"""
import signal
import subprocess
import time

from harness import LLAMA, until
from llama_pair import CHAT, ENDLESS, Pair, Pending, main, real, simulated

# Where the simulated one is not like the real one, and why that is no defect.
DIFFERENCES = {
    "the JSON parser's complaints": "another JSON library: the message begins alike, its rest differs",
    "numbers of prompt tokens": "there is no tokenizer: a token of a prompt is four characters",
    "cached tokens": "there is no prompt cache; always 0",
    "figures of the model (meta, ftype), templates, seeds, ids, times": "types only",
    "a stream of a process that is to end": "the real one mostly stays for ever and sometimes cuts it and ends: a race. "
                                            "The simulated one does what busy-stop= says, and stays by default",
    "the first milliseconds of a child": "the real one does not listen yet (500), the simulated one mostly does (503)",
    "duplicate lines of a failed load": "--fit tries the load first and fails, too; the simulated one says it once",
    "routes that nobody here uses": "ABSENT_ROUTES, and DELETE /models, which removes downloads: 404",
    "the words of --help and of the metrics' descriptions": "the same flags and names, in our own words",
    "reused connections": "errors do not close the connection",
}
ABSENT_ROUTES = ["/v1/messages", "/v1/responses", "/infill", "/rerank", "/detokenize", "/apply-template"]


class CommandLine(Pair):
    def run_program(self, binary, *arguments):
        return subprocess.run([binary, *arguments], capture_output=True, text=True, timeout=20, cwd=self.folder)

    def test_every_flag_of_the_real_one_is_known_and_no_other(self):
        def flags(binary):
            text = self.run_program(binary, "--help").stdout
            names = set()
            for line in text.splitlines():
                # The real one keeps flags in order to say that they are gone.
                if line.startswith("-") and "has been removed" not in line:
                    names.update(word.rstrip(",") for word in line[:60].split() if word.startswith("-"))
            return {name for name in names if name.strip("-")[:1].isalpha()}

        ours, theirs = flags(self.link()), flags(LLAMA)
        self.assertGreater(len(theirs), 200)
        self.assertEqual(ours - theirs, set())
        self.assertEqual(theirs - ours, set())

    def test_wrong_arguments(self):
        def story(start, noted):
            for words in (["--foo"], ["-m", "x", "stray"], ["-m"], ["-m", "x", "-c", "nonsense"], ["-m", "x", "-ngl", "y"],
                          ["--ctx-size=5"], ["-m", "x", "--fit", "maybe"], ["-m", "x", "-fa", "maybe"]):
                with start(*words, ready=False) as server:
                    noted[f"exit {words}"] = server.exit_code()
                    noted[f"log {words}"] = server.log().split("usage:")[0].strip()
        # The port comes behind these words, so a missing value would be taken from there.
        self.both(story)

    def test_the_version(self):
        for binary in (LLAMA, self.link()):
            run = self.run_program(binary, "--version")
            self.assertEqual((run.returncode, run.stdout), (0, ""))
            self.assertRegex(run.stderr, r"^version: 0\.7\.0 \(build 11669, commit \w+\)\n")


class SingleModel(Pair):
    def test_a_conversation(self):
        def story(start, noted):
            with start("-m", "models/alpha.gguf", "-c", "250") as server:
                self.ask_all(server, noted, [
                    ("GET", "/health"), ("GET", "/v1/health"), ("GET", "/props"), ("GET", "/slots"), ("GET", "/metrics"),
                    ("GET", "/models"), ("GET", "/v1/models"), ("GET", "/lora-adapters"), ("GET", "/nowhere"), ("GET", "/"),
                    ("POST", "/health", {}), ("POST", "/props", {}), ("DELETE", "/v1/models"), ("OPTIONS", "/v1/models"),
                    ("GET", "/v1/chat/completions"), ("POST", "/models/load", {"model": "alpha"}), ("GET", "/models/sse"),
                    ("POST", "/tokenize", {"content": "Hello"}),
                    ("POST", "/v1/chat/completions", CHAT),
                    ("POST", "/v1/chat/completions", dict(CHAT, model="another", max_tokens=2)),
                    ("POST", "/v1/chat/completions", dict(CHAT, max_tokens=1)),
                    ("POST", "/chat/completions", CHAT),
                    ("POST", "/v1/completions", {"prompt": "One, two", "max_tokens": 8, "temperature": 0}),
                    ("POST", "/completion", {"prompt": "One, two", "n_predict": 8}),
                    ("POST", "/completions", {"prompt": "One, two", "n_predict": 2}),
                    ("GET", "/slots"),
                    ("POST", "/v1/embeddings", {"input": "x"}), ("POST", "/embedding", {"content": "x"}),
                    ("POST", "/v1/chat/completions", "{nonsense"), ("POST", "/v1/chat/completions", ""),
                    ("POST", "/v1/chat/completions", {}), ("POST", "/v1/chat/completions", {"messages": "x"}),
                    ("POST", "/v1/completions", {}), ("POST", "/completion", {}),
                    ("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "word " * 2000}]}),
                ])
                noted["HEAD"] = server.ask("HEAD", "/health").status
        self.both(story)

    def test_streams(self):
        def story(start, noted):
            with start("-m", "models/thinker.gguf", "-c", "256", "--alias", "glm") as server:
                self.ask_all(server, noted, [
                    ("POST", "/v1/chat/completions", dict(CHAT, stream=True)),
                    ("POST", "/v1/chat/completions", dict(CHAT, stream=True, stream_options={"include_usage": True})),
                    ("POST", "/v1/completions", {"prompt": "hi", "max_tokens": 64, "temperature": 0, "stream": True}),
                    ("POST", "/completion", {"prompt": "hi", "n_predict": 64, "temperature": 0, "stream": True}),
                    ("POST", "/v1/chat/completions", dict(CHAT, stream=True, max_tokens=3)),
                ])
        self.both(story)

    def test_thoughts_and_figures(self):
        def story(start, noted):
            with start("-m", "models/thinker.gguf", "-c", "256", "--alias", "glm,other", "--metrics") as server:
                self.ask_all(server, noted, [
                    ("GET", "/metrics"), ("GET", "/v1/models"), ("GET", "/props"),
                    ("POST", "/v1/chat/completions", CHAT),
                    ("POST", "/v1/chat/completions", dict(CHAT, max_tokens=4)),
                    ("POST", "/v1/completions", {"prompt": "hi", "max_tokens": 64, "temperature": 0}),
                    ("POST", "/completion", {"prompt": "hi", "max_tokens": 64, "temperature": 0}),
                ])
                usage = server.ask("POST", "/v1/chat/completions", CHAT).json
                noted["one token more than the words, and two for the thought"] = usage["usage"]["completion_tokens"]
                one = server.ask("POST", "/v1/chat/completions", dict(CHAT, max_tokens=1)).json["timings"]
                noted["one token has no rate"] = one["predicted_per_second"]
                figures = server.ask("GET", "/metrics").body
                noted["predicted in all"] = [line for line in figures.splitlines() if line.startswith("llamacpp:tokens_predicted_total")]
        self.both(story)

    def test_embeddings(self):
        def story(start, noted):
            with start("-m", "models/embed.gguf", "-c", "256", "--embeddings", "--alias", "emb") as server:
                self.ask_all(server, noted, [
                    ("POST", "/v1/embeddings", {"input": "probe"}),
                    ("POST", "/v1/embeddings", {"input": ["probe", "two"], "model": "zzz"}),
                    ("POST", "/embedding", {"content": "probe"}), ("POST", "/embeddings", {"input": "probe"}),
                    ("POST", "/v1/embeddings", {}), ("POST", "/v1/embeddings", "{"),
                    ("POST", "/v1/chat/completions", CHAT), ("POST", "/v1/completions", {"prompt": "x"}),
                    ("GET", "/slots"),
                ])
                same = [server.ask("POST", "/v1/embeddings", {"input": text}).json["data"][0]["embedding"]
                        for text in ("one", "one", "two")]
                noted["the same text, the same vector"] = (same[0] == same[1], same[0] == same[2])
                noted["its length"] = round(sum(number * number for number in same[0]), 3)
        self.both(story)

    def test_keys(self):
        def story(start, noted):
            with start("-m", "models/alpha.gguf", "--api-key", "one,two") as server:
                for key in ("Bearer wrong", "Bearer two", ""):
                    self.ask_all(server, noted, [
                        ("GET", "/health"), ("GET", "/props"), ("GET", "/v1/models"), ("GET", "/nowhere"), ("GET", "/"),
                        ("POST", "/v1/chat/completions", CHAT), ("OPTIONS", "/props")],
                        prefix=f"{key}: ", headers={"Authorization": key} if key else {})
        self.both(story)

    def test_loading_is_said_on_every_route(self):
        paths = ["/props", "/slots", "/v1/models", "/metrics", "/nowhere", "/"]

        def story(start, noted):
            for _ in range(8):
                seen = {}
                with start("-m", "models/large.gguf", "-c", "8192", ready=False) as server:
                    until(server.listens, what="the listener")
                    for path in [*paths, "/health"]:
                        seen[path] = server.ask("GET", path).noted()
                    seen["chat"] = server.ask("POST", "/v1/chat/completions", CHAT).noted()
                if seen["/health"][0] == 503 and seen["chat"][0] == 503:
                    noted.update(seen)
                    return
            self.fail("it was never met while it loaded")
        self.both(story)

    def test_routes_that_are_absent_are_so_on_purpose(self):
        with real(self.folder, "-m", "models/alpha.gguf") as server:
            there = {path: server.ask("POST", path, {}).status for path in ABSENT_ROUTES}
        with simulated(self.folder, "-m", "models/alpha.gguf") as server:
            here = {path: server.ask("POST", path, {}).status for path in ABSENT_ROUTES}
        self.assertEqual(set(here.values()), {404})
        self.assertNotIn(404, there.values())

    def test_loads_that_fail(self):
        def story(start, noted):
            for file in ("models/bad.gguf", "models/nowhere.gguf", "junk.gguf"):
                with start("-m", file, ready=False) as server:
                    noted[f"{file} exit"] = server.exit_code()
                    noted[f"{file} log"] = list(dict.fromkeys(
                        line for line in server.errors() if not line.startswith("E common_fit_params:")))
            with start("-m", "models/alpha.gguf") as server, \
                    start("-m", "models/alpha.gguf", ready=False, port=server.port) as second:
                noted["busy port exit"] = second.exit_code()
                noted["busy port log"] = second.errors()
        self.both(story)


class TheEnd(Pair):
    """What becomes of a process that is to end: the ways of the real one are worth knowing, and were found by trying."""

    def test_of_an_idle_server(self):
        def story(start, noted):
            for number in (signal.SIGTERM, signal.SIGINT):
                with start("-m", "models/alpha.gguf") as server:
                    server.ask("POST", "/v1/chat/completions", CHAT)  # the real one hears signals a moment after it is ready
                    server.signal(number)
                    noted[f"{number.name}"] = server.exit_code()
        self.both(story)

    def test_of_one_that_loads(self):
        def story(start, noted):
            for _ in range(8):
                with start("-m", "models/large.gguf", ready=False) as server:
                    until(server.listens, what="the listener")
                    loading = server.ask("GET", "/health").status
                    server.signal(signal.SIGTERM)
                    code = server.exit_code()
                if loading == 503 and code != 0:
                    noted["exit"] = code
                    return
            self.fail("it was never met while it loaded")
        self.both(story)

    def test_with_a_request_in_flight_it_stays(self):
        def story(start, noted):
            with start("-m", "models/long.gguf", "-c", "131072") as server:
                pending = Pending(server.port, "/v1/chat/completions", ENDLESS)
                until(lambda: any(slot["is_processing"] for slot in server.ask("GET", "/slots").json), what="a busy slot")
                server.signal(signal.SIGTERM)
                until(lambda: not server.listens(), what="the listener's end")
                noted["it stays"] = server.stays()
                server.signal(signal.SIGTERM)
                noted["the second signal ends it"] = server.exit_code()
                noted["no answer"] = (pending.wait(), pending.error)
        self.both(story)

    def test_a_client_that_leaves_frees_the_slot(self):
        def story(start, noted):
            with start("-m", "models/long.gguf", "-c", "131072") as server:
                for stream in (False, True):
                    pending = Pending(server.port, "/v1/chat/completions", dict(ENDLESS, stream=stream))
                    busy = lambda: any(slot["is_processing"] for slot in server.ask("GET", "/slots").json)
                    until(busy, what="a busy slot")
                    pending.leave()
                    # The real one looks for its client after a second without any news, and each question is news.
                    noted[f"stream {stream}: free again"] = any(not busy() for _ in range(6) if not time.sleep(1.5))
                server.signal(signal.SIGTERM)
                noted["exit"] = server.exit_code()
        self.both(story)

    def test_sleep_and_waking(self):
        def story(start, noted):
            with start("-m", "models/alpha.gguf", "--sleep-idle-seconds", "1", "--metrics") as server:
                asleep = lambda: server.ask("GET", "/props").json["is_sleeping"]
                until(asleep, what="its sleep")
                for path in ("/health", "/props", "/v1/models", "/metrics"):
                    noted[f"asleep {path}"] = server.ask("GET", path).noted()
                    noted[f"{path} wakes it"] = not asleep()
                noted["slots"] = server.ask("GET", "/slots").noted()
                noted["/slots wakes it"] = not asleep()
                until(asleep, what="its sleep")
                noted["a question wakes it"] = server.ask("POST", "/v1/chat/completions", CHAT).noted()
                noted["awake"] = not asleep()
                until(asleep, what="its sleep")
                server.signal(signal.SIGTERM)
                noted["exit"] = server.exit_code()
        self.both(story)


if __name__ == "__main__":
    main()
