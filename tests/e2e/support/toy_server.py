#!/usr/bin/env python3
"""A small inference server with bad habits, for services of the engine `command`.

It answers /health, /v1/models and /v1/chat/completions, and misbehaves as its options say.
"""
import argparse
import json
import os
import signal
import socket
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

options = argparse.ArgumentParser()
options.add_argument("--port", type=int, required=True)
options.add_argument("--model", default="toy")
options.add_argument("--says", default="Hello from the toy.")
options.add_argument("--ready-after", type=float, default=0.0, help="seconds of 503 before /health is 200")
options.add_argument("--exit-at-once", type=int, help="end with this code before listening")
options.add_argument("--complain", default="", help="a line for the log before anything else")
options.add_argument("--ignore-sigterm", action="store_true")
options.add_argument("--fork-survivor", action="store_true", help="leave a child behind in a session of its own")
options.add_argument("--fail-if-exists", help="end with code 1 while this file exists")
options.add_argument("--die-with", help="end with code 1 as soon as this file exists")
options.add_argument("--print-env", action="store_true")
options.add_argument("--compile", type=float, default=0.0, help="seconds of work in short-lived children, before anything else")
args = options.parse_args()

started = time.monotonic()
if args.complain:
    print(args.complain, file=sys.stderr, flush=True)
if args.print_env:
    for name, value in sorted(os.environ.items()):
        print(f"{name}={value}", flush=True)
if args.exit_at_once is not None:
    sys.exit(args.exit_at_once)
if args.fail_if_exists and os.path.exists(args.fail_if_exists):
    print("RuntimeError: told to fail", file=sys.stderr, flush=True)
    sys.exit(1)
if args.ignore_sigterm:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
while time.monotonic() - started < args.compile:
    compiler = os.fork()
    if compiler == 0:
        until = time.process_time() + 0.2
        while time.process_time() < until:
            pass
        os._exit(0)
    os.waitpid(compiler, 0)
if args.fork_survivor and os.fork() == 0:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if os.fork():
        os._exit(0)
    while True:
        time.sleep(3600)


class Handler(BaseHTTPRequestHandler):
    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        if self.path == "/health":
            ready = time.monotonic() - started >= args.ready_after
            self.answer(200 if ready else 503, {"status": "ok" if ready else "loading"})
        elif self.path == "/v1/models":
            self.answer(200, {"object": "list", "data": [{"id": args.model, "object": "model"}]})
        else:
            self.answer(404, {"error": "not here"})

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        message = {"role": "assistant", "content": args.says}
        self.answer(200, {"model": args.model, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    address_family = socket.AF_INET
    daemon_threads = True


Server.allow_reuse_address = True
Server(("127.0.0.1", args.port), Handler).serve_forever()
