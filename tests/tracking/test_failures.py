"""A tracking server that does not do its part: the job goes on, with one warning."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from trex_ds.tracking import sender as sender_module
from trex_ds.tracking.settings import TrackingConfig
from trex_ds.tracking.tracker import Tracker


def logged_steps(file: Path) -> list[int]:
    return [json.loads(line)["step"] for line in file.read_text().splitlines()]


def check_one_warning(caplog, tracker: Tracker, *texts: str) -> None:
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 1, warnings
    for text in (tracker.uri, str(tracker.file), *texts):
        assert text in warnings[0]
    assert tracker.describe() == f"MLflow at {tracker.uri} failed; metrics are in {tracker.file}"


LONG = 60.0
"""Seconds for a request that is answered, at once on a machine with nothing else to do."""


def run_job(uri: str, folder: Path, timeout: float = LONG) -> Tracker:
    """A short job that uses all of the interface and returns only if nothing raises or hangs."""
    with Tracker(TrackingConfig(uri=uri, timeout=timeout), folder) as tracker:
        tracker.log_params({"a": 1})
        for step in range(5):
            tracker.log_metrics({"loss": 1.0}, step)
        tracker.log_artifact(__file__)
        tracker.set_tags({"b": 2})
    assert logged_steps(tracker.file) == [0, 1, 2, 3, 4]
    return tracker


def test_server_that_is_down(closed_port, tmp_path, caplog):
    tracker = run_job(f"http://127.0.0.1:{closed_port}", tmp_path)
    check_one_warning(caplog, tracker, "refused")
    assert tracker.run_id is None


def test_server_that_hangs(hanging_port, tmp_path, caplog):
    tracker = run_job(f"http://127.0.0.1:{hanging_port}", tmp_path, timeout=1.0)
    check_one_warning(caplog, tracker, "timed out")


def test_server_that_answers_with_errors_from_the_start(fake_server, tmp_path, caplog):
    fake_server.failing = ("mlflow/",)
    check_one_warning(caplog, run_job(fake_server.uri, tmp_path), "500")


def test_fake_server_that_works(fake_server, tmp_path, caplog):
    tracker = run_job(fake_server.uri, tmp_path)
    assert sorted(fake_server.metrics) == [("loss", 1.0, step) for step in range(5)]
    assert [record.getMessage() for record in caplog.records] == []
    assert tracker.run_id == "a" * 32


def test_server_that_dies_in_the_middle(fake_server, tmp_path, caplog):
    with Tracker(TrackingConfig(uri=fake_server.uri, timeout=LONG), tmp_path) as tracker:
        tracker.log_metrics({"loss": 1.0}, 0)
        with fake_server.changed:
            assert fake_server.changed.wait_for(lambda: fake_server.metrics, timeout=60)
            fake_server.failing = ("mlflow/",)
        for step in range(1, 50):
            tracker.log_metrics({"loss": 1.0}, step)
        tracker.log_artifact(__file__)
    check_one_warning(caplog, tracker, "500")
    assert logged_steps(tracker.file) == list(range(50))
    assert fake_server.metrics == [("loss", 1.0, 0)]
    # It has stopped sending: one request with its two retries after the one that worked.
    assert fake_server.requests.count("mlflow/runs/log-batch") == 4


def test_server_that_dies_before_an_artifact(fake_server, tmp_path, caplog):
    fake_server.failing = ("mlflow-artifacts", "mlflow/runs/get", "mlflow/runs/update")
    check_one_warning(caplog, run_job(fake_server.uri, tmp_path), "500")


def test_artifact_store_that_fails_alone(fake_server, tmp_path, caplog):
    fake_server.failing = ("mlflow-artifacts",)
    with Tracker(TrackingConfig(uri=fake_server.uri), tmp_path) as tracker:
        tracker.log_artifact(__file__)
        with fake_server.changed:
            assert fake_server.changed.wait_for(lambda: "mlflow/runs/get" in fake_server.requests, timeout=60)
        tracker.log_metrics({"loss": 1.0}, 1)
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        f"artifact {__file__} was not uploaded to MLflow"
    ]
    assert fake_server.metrics == [("loss", 1.0, 1)]
    assert fake_server.requests[-1] == "mlflow/runs/update"


def test_finish_gives_up_after_its_time(hanging_port, tmp_path, caplog, monkeypatch):
    tracker = Tracker(TrackingConfig(uri=f"http://127.0.0.1:{hanging_port}", timeout=600.0), tmp_path)
    monkeypatch.setattr(tracker, "_patience", 0.2)
    with tracker:
        tracker.log_metrics({"loss": 1.0}, 1)
    check_one_warning(caplog, tracker, "after the end of the job")


def test_what_waits_for_a_slow_server_is_bounded(hanging_port, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(sender_module, "_MAX_WAITING", 10)
    with Tracker(TrackingConfig(uri=f"http://127.0.0.1:{hanging_port}", timeout=3.0), tmp_path) as tracker:
        for step in range(50):
            tracker.log_metrics({"loss": 1.0}, step)
    check_one_warning(caplog, tracker, "too slow, 11 values behind")
    assert logged_steps(tracker.file) == list(range(50))


def test_settings_of_the_user_are_kept_and_others_are_set(closed_port, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    run_job(f"http://127.0.0.1:{closed_port}", tmp_path)
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0"
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "60"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_the_process_ends_while_a_request_hangs(hanging_port, tmp_path):
    """Neither the sender's thread nor MLflow's own may hold the interpreter back."""
    script = f"""
from trex_ds.tracking.settings import TrackingConfig
from trex_ds.tracking.tracker import Tracker
tracker = Tracker(TrackingConfig(uri="http://127.0.0.1:{hanging_port}", timeout=3600.0), {str(tmp_path)!r})
tracker.start()
tracker.log_metrics({{"loss": 1.0}}, 1)
tracker.log_artifact({__file__!r})
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=280)
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    assert logged_steps(tmp_path / "metrics.jsonl") == [1]
