"""A small HTTP server that answers as Kubernetes' API does, for one Job and its pod, after its documentation."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass
class Request:
    """One request that came."""

    method: str
    path: str
    query: dict[str, list[str]]
    body: Any


@dataclass
class KubernetesApi:
    """Keeps Jobs and Secrets as a cluster would; pods and their logs are what the test puts there.

    `statuses` are answers to be given first, by method and kind; `log` is what each request
    for the log is answered with, the last one again and again; `pods` are given one after the other, too.
    """

    pods: list[list[dict[str, Any]]] = field(default_factory=lambda: [[]])
    log: list[bytes] = field(default_factory=lambda: [b""])
    statuses: dict[str, list[int]] = field(default_factory=dict)
    job_status: dict[str, Any] = field(default_factory=dict)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    secrets: dict[str, dict[str, Any]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        api = self
        # The second line of a log waits for it.
        self.goes_on = threading.Event()
        self.goes_on.set()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                api.answer(self, "GET")

            def do_POST(self) -> None:
                api.answer(self, "POST")

            def do_DELETE(self) -> None:
                api.answer(self, "DELETE")

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def list_requests(self) -> list[str]:
        """Method and path of every request, without the namespace's part."""
        return [f"{each.method} {each.path.partition('/namespaces/ml/')[2]}" for each in self.requests]

    def answer(self, handler: BaseHTTPRequestHandler, method: str) -> None:
        parts = urlsplit(handler.path)
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        request = Request(method, parts.path, parse_qs(parts.query), json.loads(body) if body else None)
        self.requests.append(request)
        kind, _, name = parts.path.partition("/namespaces/ml/")[2].partition("/")
        forced = self.statuses.get(f"{method} {kind}", [])
        status = forced.pop(0) if forced else 0
        if status >= 300:
            self._send(handler, status, _refuse(status))
        elif name.endswith("/log"):
            self._send_log(handler, self.log.pop(0) if len(self.log) > 1 else self.log[0])
        elif kind == "pods":
            items = self.pods.pop(0) if len(self.pods) > 1 else self.pods[0]
            self._send(handler, 200, {"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": items})
        elif method == "POST":
            self._create(handler, self.jobs if kind == "jobs" else self.secrets, request.body)
        elif method == "DELETE":
            found = self.jobs.pop(name, None)
            self._send(handler, 200 if found else 404, {"kind": "Status"} if found else _refuse(404))
        elif name:
            job = self.jobs.get(name)
            self._send(handler, 200 if job else 404, {**job, "status": self.job_status} if job else _refuse(404))
        else:
            wanted = dict(each.split("=") for each in request.query["labelSelector"][0].split(","))
            items = [job for job in self.jobs.values() if wanted.items() <= job["metadata"]["labels"].items()]
            self._send(handler, 200, {"apiVersion": "batch/v1", "kind": "JobList", "metadata": {}, "items": items})

    def _create(self, handler: BaseHTTPRequestHandler, kept: dict[str, dict[str, Any]], body: dict[str, Any]) -> None:
        name = body["metadata"]["name"]
        if name in kept:
            self._send(handler, 409, _refuse(409))
            return
        kept[name] = {**body, "metadata": {**body["metadata"], "uid": f"uid-of-{name}"}}
        self._send(handler, 201, kept[name])

    def _send(self, handler: BaseHTTPRequestHandler, status: int, answer: dict[str, Any]) -> None:
        content = json.dumps(answer).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    def _send_log(self, handler: BaseHTTPRequestHandler, content: bytes) -> None:
        """Send a log line by line, in chunks; one that ends in `…` breaks off there, in the middle of the answer."""
        handler.send_response(200)
        handler.send_header("Content-Type", "text/plain")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        whole = content.removesuffix(_CUT)
        for number, line in enumerate(whole.splitlines(keepends=True)):
            if number == 1:
                assert self.goes_on.wait(20)
            handler.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
            handler.wfile.flush()
        if whole == content:
            handler.wfile.write(b"0\r\n\r\n")
        else:
            handler.close_connection = True


_CUT = "…".encode()


def _refuse(status: int) -> dict[str, Any]:
    words = {403: 'jobs.batch is forbidden: User "trainer" cannot create resource "jobs"', 409: "already exists"}
    return {
        "apiVersion": "v1",
        "kind": "Status",
        "status": "Failure",
        "message": words.get(status, "no"),
        "code": status,
    }


def make_pod(phase: str, **status: Any) -> dict[str, Any]:
    """A pod as the API lists it."""
    metadata = {"name": "driftloop-pod", "creationTimestamp": "2026-01-01T00:00:00Z"}
    spec = {"containers": [{"name": "job", "image": "x"}]}
    return {"metadata": metadata, "spec": spec, "status": {"phase": phase, **status}}
