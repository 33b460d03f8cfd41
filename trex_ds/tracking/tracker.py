"""What a job reports: parameters, metrics, artifacts and how it ended."""

from __future__ import annotations

import json
import math
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, SupportsFloat

from trex_ds.tracking.sender import Sender
from trex_ds.tracking.settings import TrackingConfig, masked, sqlite_file

Status = Literal["FINISHED", "FAILED"]


class Tracker:
    """One MLflow run, and `metrics.jsonl` in `folder` with the same metrics whatever MLflow does.

    Make it on every rank, with `enabled` on rank 0 only: elsewhere it does nothing. Used as a
    context manager it starts, and finishes as FAILED on an exception. Each line of the file is
    `{"step": int, "time": seconds since 1970, "metrics": {name: value}}`, with a value that is not
    finite as text ("nan", "inf", "-inf"); a resumed job appends, so for a step that comes twice the
    later line holds.

    A store that is down, slow or wrong costs the job one warning, and nothing more is sent to it.
    With a `parent`, which has been started, its MLflow run lies below the parent's. With a `run_id` it goes on
    with that run, if the store still has it.

    `log_*` only queue; `start` imports MLflow, which takes seconds but no network; `finish` waits.
    """

    def __init__(
        self,
        config: TrackingConfig,
        folder: str | Path,
        *,
        enabled: bool = True,
        parent: Tracker | None = None,
        run_id: str | None = None,
    ):
        self.uri = config.resolved_uri()
        self.file = Path(folder).absolute() / "metrics.jsonl"
        # A server gets the time that a request with its retries takes, and a last upload. A local file
        # cannot hang, but making a database on a busy machine takes a while.
        self._patience = 300.0 if sqlite_file(self.uri) else max(60.0, 6 * config.timeout)
        above: Sender | None = parent._sender if parent is not None else None
        self._sender: Sender | None = Sender(config, self.uri, self.file, above, run_id) if enabled else None
        self._finished = False

    @property
    def run_id(self) -> str | None:
        """The MLflow run; None until the store has made it."""
        return self._sender.run_id if self._sender else None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish("FINISHED" if kind is None else "FAILED")

    def start(self) -> None:
        """Open the local file and begin the run in the background."""
        if self._sender is None:
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("ab+") as stream:
            # A job that was killed may have left half a line.
            if stream.tell():
                stream.seek(-1, 2)
                if stream.read() != b"\n":
                    stream.write(b"\n")
        self._sender.start()

    def log_metrics(self, metrics: Mapping[str, SupportsFloat], step: int) -> None:
        """Append `metrics` to the local file and queue them for MLflow.

        Raises:
            ValueError: if a value is not a number.
        """
        if self._sender is None or not metrics:
            return
        now = time.time()
        values = {name: _number(name, value) for name, value in metrics.items()}
        shown = {name: value if math.isfinite(value) else str(value) for name, value in values.items()}
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"step": step, "time": round(now, 3), "metrics": shown}) + "\n")
        self._sender.log(metrics=[(name, value, int(now * 1000), step) for name, value in values.items()])

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Queue the run's parameters, as text; values over 6000 characters are cut."""
        if self._sender is not None:
            self._sender.log(params={name: str(value) for name, value in params.items()})

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Queue tags of the run, as text."""
        if self._sender is not None:
            self._sender.log(tags={name: str(value) for name, value in tags.items()})

    def log_artifact(self, path: str | Path, artifact_path: str | None = None) -> None:
        """Queue the upload of a file, or of a folder's contents, into the run's `artifact_path`.

        It is read later, in the background: leave it in place until `finish`.
        """
        if self._sender is not None:
            self._sender.log(artifact=(Path(path).absolute(), artifact_path))

    def finish(self, status: Status = "FINISHED") -> None:
        """End the run, after waiting for what is queued. Only the first call counts.

        It waits for a server a minute at most, or 6 timeouts if longer; for a local file 5 minutes.
        """
        if self._sender is not None and not self._finished:
            self._finished = True
            self._sender.close(status, self._patience)

    def describe(self) -> str:
        """Say how to look at the run: a command, an address or a file, without passwords."""
        if self._sender is None:
            return "tracking is off in this process"
        if self._sender.failed:
            return f"MLflow at {masked(self.uri)} failed; metrics are in {self.file}"
        uri = masked(self.uri)
        if not uri.startswith(("http:", "https:")):
            return f"mlflow ui --backend-store-uri {shlex.quote(uri)}"
        if self.run_id is None:
            return uri
        return f"{uri.rstrip('/')}/#/experiments/{self._sender.experiment_id}/runs/{self.run_id}"


def _number(name: str, value: SupportsFloat) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"metric {name!r} must be a number, got {value!r}") from None
