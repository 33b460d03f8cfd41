from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from unittest import mock

import pytest


@pytest.fixture(autouse=True)
def _environment(monkeypatch) -> Iterator[None]:
    """No tracking settings from outside, none left behind, and retries without pauses."""
    with mock.patch.dict(os.environ):
        for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
            del os.environ[name]
        os.environ["MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR"] = "0"
        os.environ["MLFLOW_HTTP_REQUEST_BACKOFF_JITTER"] = "0"
        os.environ["NO_PROXY"] = "127.0.0.1"
        yield


@pytest.fixture
def closed_port() -> Iterator[int]:
    """One that nobody listens on, and nobody can."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.fixture
def hanging_port() -> Iterator[int]:
    """A server that accepts connections (in its backlog) and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as listener:
        yield listener.getsockname()[1]


class FakeServer(ThreadingHTTPServer):
    """A server with as much of MLflow's REST interface as one run needs; can be told to fail."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.uri = f"http://127.0.0.1:{self.server_port}"
        self.failing: tuple[str, ...] = ()
        self.requests: list[str] = []
        self.metrics: list[tuple[str, float, int]] = []
        self.changed = threading.Condition()


class _Handler(BaseHTTPRequestHandler):
    server: FakeServer

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0].rpartition("/2.0/")[2]
        with self.server.changed:
            self.server.requests.append(path)
            code = 500 if path.startswith(self.server.failing or ("-",)) else 200
            answer: dict = {}
            run = {"info": {"run_id": "a" * 32, "experiment_id": "7", "artifact_uri": "mlflow-artifacts:/7/a"}}
            if path == "mlflow/experiments/get-by-name":
                answer = {"experiment": {"experiment_id": "7", "name": "x", "lifecycle_stage": "active"}}
            elif path in ("mlflow/runs/create", "mlflow/runs/get"):
                answer = {"run": run}
            elif path == "mlflow/runs/log-batch" and code == 200:
                sent = json.loads(body).get("metrics", [])
                self.server.metrics += [(m["key"], m["value"], int(m.get("step", 0))) for m in sent]
            elif not path.startswith("mlflow"):
                code = 404
            self.server.changed.notify_all()
        self.send_response(code)
        self.end_headers()
        self.wfile.write(json.dumps(answer if code == 200 else {"message": "broken"}).encode())

    do_GET = do_POST = do_PUT = do_PATCH = _answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def fake_server() -> Iterator[FakeServer]:
    server = FakeServer()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
