"""The thread that talks to MLflow, so that no tracking server can stall or end a job."""

from __future__ import annotations

import logging
import math
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from trex_ds.tracking.names import mlflow_name
from trex_ds.tracking.settings import TrackingConfig, masked, sqlite_file
from trex_ds.tracking.store import make_store
from trex_ds.wording import shortened

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOG = logging.getLogger(__name__)

# What a server takes: length of a parameter's value and of a tag's value.
_MAX_PARAM, _MAX_TAG = 6000, 8000
# Values that may wait for a slow server before it counts as failed; bounds the memory they take.
_MAX_WAITING = 100_000
# The cause comes last in the errors of the HTTP client, after the address and its own doings.
_MAX_ERROR = 1000
_THREAD_NAME = "mlflow-sender"


@dataclass
class _Waiting:
    """What has been logged and not been sent. Metrics are (name, value, milliseconds, step)."""

    metrics: list[tuple[str, float, int, int]] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    artifacts: list[tuple[Path, str | None]] = field(default_factory=list)
    status: str | None = None

    def __bool__(self) -> bool:
        return bool(self.metrics or self.params or self.tags or self.artifacts or self.status)


class Sender:
    """Sends to one MLflow run from one background thread; the first failure ends it with one warning.

    `log` never waits for the store, `close` waits a bounded time. The thread is a daemon: the
    interpreter does not wait for it.
    """

    def __init__(
        self,
        config: TrackingConfig,
        uri: str,
        local_file: Path,
        parent: Sender | None = None,
        earlier_run: str | None = None,
    ):
        self._parent = parent
        self._earlier_run = earlier_run
        self.run_id: str | None = None
        self.experiment_id: str | None = None
        self.failed = False
        self._closed = False
        self._config = config
        self._uri = uri
        self._local_file = local_file
        self._fixed_params: set[str] = set()
        self._waiting = _Waiting()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=_THREAD_NAME, daemon=True)

    def start(self) -> None:
        """Import MLflow (seconds, from the local disk) and start the thread."""
        self._set_environment()
        try:
            # Here and not in the thread: two threads that import at once can each get half a module.
            import mlflow  # noqa: F401
        except Exception as error:  # it looks at the user's home and settings
            self._fail(error)
        else:
            self._thread.start()

    def log(
        self,
        metrics: list[tuple[str, float, int, int]] | None = None,
        params: dict[str, str] | None = None,
        tags: dict[str, str] | None = None,
        artifact: tuple[Path, str | None] | None = None,
    ) -> None:
        """Queue values for the run; does nothing once the sender has failed or is closed."""
        with self._changed:
            if self.failed or self._closed:
                return
            self._waiting.metrics += metrics or []
            self._waiting.params |= params or {}
            self._waiting.tags |= tags or {}
            self._waiting.artifacts += [artifact] if artifact else []
            self._changed.notify()
            behind = len(self._waiting.metrics)
        if behind > _MAX_WAITING:
            self._fail(TimeoutError(f"too slow, {behind} values behind"))

    def close(self, status: str, patience: float) -> None:
        """Send what waits, then the run's final status; give up after `patience` seconds."""
        with self._changed:
            self._closed = True
            self._waiting.status = status
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(patience)
            if self._thread.is_alive():
                self._fail(TimeoutError(f"not done {patience:.0f} s after the end of the job"))

    def wait_for_run(self) -> str | None:
        """The run's id as soon as the store has made it; None if it never will."""
        with self._changed:
            self._changed.wait_for(lambda: self.run_id is not None or self.failed)
            return self.run_id

    def _set_environment(self) -> None:
        """Settings that MLflow takes from the environment alone; what the user has set stays."""
        seconds = str(max(1, math.ceil(self._config.timeout)))
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", seconds)
        # Two retries wait about 5 s in all; MLflow's seven would take minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        # Compute nodes often have no way out, and nobody asked to be reported on.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        # It tells of every table it makes in a new database.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        # urllib3 warns of every retry; the one warning that matters is this module's.
        logging.getLogger("urllib3.connectionpool").addFilter(_not_from_this_thread)

    def _run(self) -> None:
        try:
            client = self._connect()
            status = None
            while status is None:
                with self._changed:
                    self._changed.wait_for(lambda: self._waiting or self.failed)
                    batch, self._waiting = self._waiting, _Waiting()
                if self.failed:
                    return
                self._send(client, batch)
                status = batch.status
            client.set_terminated(self.run_id, status)
        except Exception as error:
            self._fail(error)

    def _connect(self) -> MlflowClient:
        from mlflow import MlflowClient

        artifacts = None
        if file := sqlite_file(self._uri):
            make_store(file)
            artifacts = (file.parent / "mlartifacts").as_uri()
        client = MlflowClient(self._uri)
        name = self._config.experiment
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            try:
                self.experiment_id = client.create_experiment(name, artifact_location=artifacts)
            except Exception:
                # Another job may have made it in the meantime.
                experiment = client.get_experiment_by_name(name)
                if experiment is None:
                    raise
        if experiment is not None:
            self.experiment_id = experiment.experiment_id
        self.run_id = self._reopened(client) or self._created(client)
        with self._changed:
            self._changed.notify_all()  # children wait for it
        return client

    def _reopened(self, client: MlflowClient) -> str | None:
        """The earlier run, if the store has it; what its end left open among its children is ended."""
        from mlflow.exceptions import MlflowException

        if self._earlier_run is not None:
            try:
                client.update_run(self._earlier_run, status="RUNNING")
                # MLflow takes a parameter once; a comparison that goes on may have more seeds or baselines by now.
                self._fixed_params = set(client.get_run(self._earlier_run).data.params)
                self._end_children(client, self._earlier_run)
                return self._earlier_run
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
        return None

    def _end_children(self, client: MlflowClient, parent: str) -> None:
        """Mark children that ran when the parent's job ended: they start over as other runs."""
        condition = f"tags.`mlflow.parentRunId` = '{parent}' AND attributes.status = 'RUNNING'"
        for run in client.search_runs([str(self.experiment_id)], condition):
            client.set_tag(run.info.run_id, "stage", "interrupted")
            client.set_terminated(run.info.run_id, "KILLED")

    def _created(self, client: MlflowClient) -> str:
        parent = None if self._parent is None else self._parent.wait_for_run()
        tags = {"mlflow.parentRunId": parent} if parent else {}
        name = self._config.run_name or self._local_file.parent.name
        return client.create_run(self.experiment_id, run_name=name, tags=tags).info.run_id

    def _send(self, client: MlflowClient, batch: _Waiting) -> None:
        from mlflow.entities import Metric, Param, RunTag

        assert self.run_id is not None
        client.log_batch(
            self.run_id,
            metrics=[Metric(mlflow_name(name), *rest) for name, *rest in batch.metrics],
            params=[
                Param(mlflow_name(name), shortened(value, _MAX_PARAM))
                for name, value in batch.params.items()
                if mlflow_name(name) not in self._fixed_params
            ],
            tags=[RunTag(mlflow_name(name), shortened(value, _MAX_TAG)) for name, value in batch.tags.items()],
        )
        for path, folder in batch.artifacts:
            try:
                if path.is_dir():
                    client.log_artifacts(self.run_id, str(path), folder)
                else:
                    client.log_artifact(self.run_id, str(path), folder)
            except Exception as error:
                # The artifact store is often another machine than the tracking server: if the latter
                # still answers, metrics go on. If not, this raises and the sender stops.
                client.get_run(self.run_id)
                LOG.warning("artifact %s was not uploaded to MLflow: %s", path, self._describe(error))

    def _fail(self, error: Exception) -> None:
        with self._changed:
            if self.failed:
                return
            self.failed = True
            self._waiting = _Waiting()
            self._changed.notify_all()
        LOG.warning(
            "MLflow at %s failed (%s); nothing more is sent to it. The job goes on, every metric is in %s",
            masked(self._uri),
            self._describe(error),
            self._local_file,
        )

    def _describe(self, error: Exception) -> str:
        text = " ".join(f"{type(error).__name__}: {error}".split()).replace(self._uri, masked(self._uri))
        return shortened(text, _MAX_ERROR)


def _not_from_this_thread(record: logging.LogRecord) -> bool:
    return record.threadName != _THREAD_NAME
