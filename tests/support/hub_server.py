"""A stand-in for the Hugging Face Hub on this machine, for one test."""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

__all__ = ["HubServer"]

_COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HubServer:
    """Repositories in memory, served on loopback while the context lasts.

    Attributes:
      files: contents by repository and path.
      tokens: the users' tokens that came with requests.
    """

    def __init__(self):
        self.files: dict[str, dict[str, bytes]] = {}
        self.tokens: set[str] = set()

    def __enter__(self):
        hub = self

        class Handler(_Handler):
            server_hub = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        return self

    def __exit__(self, *error):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server_hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format, *args):
        pass

    def do_POST(self):
        length = int(self.headers.get("Content-Length", 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b"".join(self._chunks())
        else:
            body = self.rfile.read(length)
        self.server_hub.tokens.add(self.headers.get("Authorization", ""))
        files = self.server_hub.files
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            owner = asked.get("organization") or "owner"
            repository = f"{owner}/{asked['name'].rpartition('/')[2]}"
            files.setdefault(repository, {})
            return self._json({"url": f"{self.server_hub.address}/{repository}"})
        if self.path == "/api/validate-yaml":  # Of the model card.
            return self._json({"warnings": [], "errors": []})
        match = re.fullmatch(r"/api/models/(\S+)/(preupload|commit)/main\S*", self.path)
        if match and match[2] == "preupload":
            modes = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                for f in json.loads(body)["files"]
            ]
            return self._json({"files": modes})
        if match:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    value = line["value"]
                    content = base64.b64decode(value["content"])
                    files[match[1]][value["path"]] = content
            address = f"{self.server_hub.address}/{match[1]}/commit/{_COMMIT}"
            return self._json(
                {
                    "commitUrl": address,
                    "commitOid": _COMMIT,
                    "pullRequestUrl": None,
                }
            )
        return self._answer(404, b"{}")

    def _chunks(self):
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(\S+)", self.path)
        files = self.server_hub.files.get(match[1] if match else "", {})
        if not match or match[2] not in files:
            return self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})
        content = files[match[2]]
        headers = {
            "ETag": f'"{hashlib.sha1(content).hexdigest()}"',
            "X-Repo-Commit": _COMMIT,
        }
        return self._answer(200, content, headers)

    def _json(self, value):
        self._answer(200, json.dumps(value).encode())

    def _answer(self, code, content, headers=()):
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
