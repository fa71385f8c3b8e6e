"""A server that talks as the Hugging Face Hub does about one repository, and can be told to misbehave."""
import hashlib
import http.server
import json
import threading


class FakeHub:
    """`files`: name → bytes. `mood`: "" or what goes wrong with every answer. `seen`: (path, headers) of each request."""

    def __init__(self, repository, files):
        self.repository = repository
        self.files = files
        self.mood = ""
        self.seen = []
        self.elsewhere = None  # where files are redirected to, as the Hub redirects to its storage
        self.release = threading.Event()  # lets what hangs go
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                hub.seen.append((self.path, dict(self.headers)))
                hub.answer(self)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()

    def close(self):
        self.release.set()
        self.server.shutdown()
        self.server.server_close()

    def listing(self):
        siblings = []
        for name, content in self.files.items():
            entry = {"rfilename": name, "size": len(content)}
            if len(content) > 4096:
                entry["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
            siblings.append(entry)
        return json.dumps({"id": self.repository, "sha": "c0ffee", "gated": False, "siblings": siblings}).encode()

    def answer(self, request):
        moods = {
            "404": lambda: self.send(request, 404, b"{}"),
            "401": lambda: self.send(request, 401, b"{}"),
            "429": lambda: self.send(request, 429, b"", {"Retry-After": "17"}),
            "hang": lambda: self.release.wait(60),
            "truncate": lambda: self.send(request, 200, self.listing()[:40], {"Content-Length": "100000"}),
            "oversize": lambda: self.send(request, 200, b"[" + b" " * (17 << 20)),
        }
        if self.mood:
            request.close_connection = True
            moods[self.mood]()
        elif request.path.startswith(f"/api/models/{self.repository}?"):
            body = self.listing()
            etag = '"' + hashlib.sha256(body).hexdigest()[:16] + '"'
            if request.headers.get("If-None-Match") == etag:
                self.send(request, 304, b"")
            else:
                self.send(request, 200, body, {"ETag": etag})
        else:
            self.send_file(request)

    def send_file(self, request):
        prefix = f"/{self.repository}/resolve/c0ffee/"
        content = self.files.get(request.path.removeprefix(prefix)) if request.path.startswith(prefix) else None
        if content is None:
            return self.send(request, 404, b"{}")
        if self.elsewhere:
            return self.send(request, 302, b"", {"Location": self.elsewhere + request.path + "?signature=abc"})
        self.send_part(request, content)

    @staticmethod
    def send_part(request, content):
        wanted = request.headers.get("Range")
        if not wanted:
            return FakeHub.send(request, 200, content)
        first, last = (int(word) for word in wanted.removeprefix("bytes=").split("-"))
        last = min(last, len(content) - 1)
        FakeHub.send(request, 206, content[first:last + 1], {"Content-Range": f"bytes {first}-{last}/{len(content)}"})

    @staticmethod
    def send(request, status, body, headers=None):
        headers = {"Content-Length": str(len(body)), **(headers or {})}
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.end_headers()
        try:
            request.wfile.write(body)
        except OSError:
            pass  # whoever asked had enough


class Storage(FakeHub):
    """Another server, where the files are: it needs no token, and must never see one."""

    def answer(self, request):
        name = request.path.split("/resolve/c0ffee/")[-1].split("?")[0]
        self.send_part(request, self.files[name])
