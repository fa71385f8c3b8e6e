"""A small MCP client over the standard streams of `gpumod mcp`, of both eras. It notes everything that comes."""
import json
import queue
import subprocess
import threading
import time

MODERN = "2026-07-28"


class McpClient:
    def __init__(self, command, env, cwd, version=MODERN, capabilities=None, name="e2e"):
        self.version, self.capabilities, self.name = version, capabilities or {}, name
        self.process = subprocess.Popen(command, env=env, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE)
        self.messages = queue.Queue()
        self.seen = []
        self.last_id = 0
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        if version != MODERN:
            self.opened = self.ask("initialize", {"protocolVersion": version, "capabilities": self.capabilities,
                                                  "clientInfo": {"name": name, "version": "1"}})
            self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def _read(self):
        for line in self.process.stdout:
            self.messages.put(json.loads(line))
        self.messages.put(None)

    def send_bytes(self, data):
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def send(self, message):
        self.send_bytes(json.dumps(message).encode() + b"\n")

    def begin(self, method, params=None, progress=False):
        """Sends a request; gives its id."""
        params = dict(params or {})
        meta = dict(params.pop("_meta", {}))
        if self.version == MODERN:
            meta |= {"io.modelcontextprotocol/protocolVersion": MODERN,
                     "io.modelcontextprotocol/clientCapabilities": self.capabilities,
                     "io.modelcontextprotocol/clientInfo": {"name": self.name, "version": "1"}}
        self.last_id += 1
        if progress:
            meta["progressToken"] = self.last_id
        if meta:
            params["_meta"] = meta
        self.send({"jsonrpc": "2.0", "id": self.last_id, "method": method, "params": params})
        return self.last_id

    def next(self, what, timeout=60):
        """The next message for which what() is true; the others are in `seen`."""
        deadline = time.monotonic() + timeout
        while True:
            message = self.messages.get(timeout=max(0.01, deadline - time.monotonic()))
            if message is None:
                raise AssertionError(f"gpumod mcp has ended: {self.process.stderr.read()}")
            self.seen.append(message)
            if what(message):
                return message

    def answer(self, request, timeout=60):
        def is_it(message):
            return message.get("id") == request and "method" not in message
        # It may have come while another was waited for.
        return next(filter(is_it, self.seen), None) or self.next(is_it, timeout)

    def ask(self, method, params=None, timeout=60, progress=False):
        message = self.answer(self.begin(method, params, progress), timeout)
        if "error" in message:
            raise AssertionError(message["error"])
        return message["result"]

    def begin_tool(self, tool, progress=False, extra=None, **arguments):
        return self.begin("tools/call", {"name": tool, "arguments": arguments, **(extra or {})}, progress)

    def tool(self, tool, progress=False, timeout=60, **arguments):
        return self.ask("tools/call", {"name": tool, "arguments": arguments}, timeout, progress)

    def progress(self):
        return [message["params"] for message in self.seen if message.get("method") == "notifications/progress"]

    def close(self, timeout=20):
        self.process.stdin.close()
        code = self.process.wait(timeout)
        self.reader.join(timeout)
        self.process.stdout.close()
        self.process.stderr.close()
        return code

    def drop(self):
        """Ends it however it is."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.reader.join()
        for pipe in self.process.stdin, self.process.stdout, self.process.stderr:
            pipe.close()
