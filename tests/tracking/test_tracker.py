"""What arrives in MLflow, read back through its own client."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ranks import free_port
from trex_ds.tracking.settings import TrackingConfig
from trex_ds.tracking.tracker import Tracker


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> str:
    """A SQLite store that the tests share: making one takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/new/mlflow.db"


def answers(address: str) -> bool:
    try:
        urllib.request.urlopen(address, timeout=5).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[str]:
    """A real tracking server, which also takes artifacts."""
    folder = tmp_path_factory.mktemp("server")
    port = free_port()
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{folder}/m.db", "--artifacts-destination", str(folder / "artifacts")),
    ]  # fmt: skip
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=environment, start_new_session=True)
        try:
            end = time.monotonic() + 500
            while not answers(f"http://127.0.0.1:{port}/health"):
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < end, "the server does not answer"
                time.sleep(0.5)
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture(params=["store", pytest.param("server", marks=pytest.mark.slow)])
def uri(request) -> str:
    return request.getfixturevalue(request.param)


def client_of(uri: str):
    from mlflow import MlflowClient

    return MlflowClient(uri)


def lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_everything_logged_arrives(uri, tmp_path, caplog):
    folder = tmp_path / "adapter"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "weights").write_bytes(b"\x00\x01")
    (tmp_path / "report.md").write_text("# hi")
    params = {f"section.p{i}": i for i in range(150)} | {"long": "ü" * 7000, "odd,name": None}
    with Tracker(TrackingConfig(experiment="all", run_name="me", uri=uri, timeout=60.0), tmp_path / "run") as tracker:
        tracker.log_params(params)
        tracker.set_tags({"git": "abc", "long": "t" * 9000})
        for step in range(3):
            tracker.log_metrics({"train/loss": 1 / (step + 1), "eval/letter_counting/accuracy": 0.5}, step)
        tracker.log_metrics({f"many/{i}": i for i in range(1200)}, 3)
        tracker.log_artifact(folder, "adapter")
        tracker.log_artifact(tmp_path / "report.md")

    assert caplog.text == ""
    client = client_of(uri)
    run = client.get_run(tracker.run_id)
    assert (run.info.run_name, run.info.status) == ("me", "FINISHED")
    assert client.get_experiment(run.info.experiment_id).name == "all"
    assert {k: v for k, v in run.data.params.items() if k.startswith("section.")} == {
        f"section.p{i}": str(i) for i in range(150)
    }
    assert run.data.params["odd_name-" + hashlib.sha256(b"odd,name").hexdigest()[:8]] == "None"
    assert run.data.params["long"] == "ü" * 5997 + "..."
    assert run.data.tags["git"] == "abc"
    history = client.get_metric_history(tracker.run_id, "train/loss")
    assert sorted((m.step, m.value) for m in history) == [(0, 1.0), (1, 0.5), (2, 1 / 3)]
    assert run.data.metrics["eval/letter_counting/accuracy"] == 0.5
    assert {k: v for k, v in run.data.metrics.items() if k.startswith("many/")} == {f"many/{i}": i for i in range(1200)}
    found = Path(client.download_artifacts(tracker.run_id, "", str(tmp_path)))
    assert (found / "adapter" / "deep" / "weights").read_bytes() == b"\x00\x01"
    assert (found / "report.md").read_text() == "# hi"
    assert lines(tracker.file)[1]["metrics"] == {"train/loss": 0.5, "eval/letter_counting/accuracy": 0.5}


def test_values_that_are_not_finite_do_not_crash_and_stay_legible(uri, tmp_path, caplog):
    values = {"nan": math.nan, "inf": math.inf, "minus": -math.inf}
    with Tracker(TrackingConfig(uri=uri), tmp_path) as tracker:
        tracker.log_metrics(values, 1)
    assert caplog.text == ""
    stored = client_of(uri).get_run(tracker.run_id).data.metrics
    assert math.isnan(stored["nan"])
    assert stored["inf"] > 1e308
    assert stored["minus"] < -1e308
    assert lines(tracker.file)[0]["metrics"] == {"nan": "nan", "inf": "inf", "minus": "-inf"}


@pytest.mark.parametrize("name", ["a@b,c", "/x", "a//b", "../a", "", "y" * 300, "ü"])
def test_any_name_of_a_metric_is_taken(store, tmp_path, caplog, name):
    with Tracker(TrackingConfig(uri=store), tmp_path) as tracker:
        tracker.log_metrics({name: 1.0}, 1)
    assert caplog.text == ""
    assert list(client_of(store).get_run(tracker.run_id).data.metrics.values()) == [1.0]
    assert lines(tracker.file)[0]["metrics"] == {name: 1.0}


def test_an_exception_marks_the_run_failed_and_keeps_what_was_logged(store, tmp_path):
    tracker = Tracker(TrackingConfig(uri=store), tmp_path)

    def job() -> None:
        with tracker:
            tracker.log_metrics({"loss": 1.0}, 1)
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        job()
    run = client_of(store).get_run(tracker.run_id)
    assert run.info.status == "FAILED"
    assert run.data.metrics == {"loss": 1.0}


def test_first_finish_counts(store, tmp_path):
    with Tracker(TrackingConfig(uri=store), tmp_path) as tracker:
        tracker.finish("FAILED")
    assert client_of(store).get_run(tracker.run_id).info.status == "FAILED"


def test_default_store_and_its_artifacts_lie_in_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("a")
    with Tracker(TrackingConfig(), tmp_path / "run") as tracker:
        monkeypatch.chdir("/")
        tracker.log_artifact(tmp_path / "a.txt")
    assert (tmp_path / "mlflow.db").is_file()
    assert [path.name for path in (tmp_path / "mlartifacts").rglob("*.txt")] == ["a.txt"]
    command = shlex.split(tracker.describe())
    assert command == ["mlflow", "ui", "--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db"]


def test_describe_a_server_gives_the_address_of_the_run(server, tmp_path):
    tracker = Tracker(TrackingConfig(uri=server, timeout=60.0), tmp_path)
    assert tracker.describe() == server
    with tracker:
        pass
    experiment = client_of(server).get_run(tracker.run_id).info.experiment_id
    assert tracker.describe() == f"{server}/#/experiments/{experiment}/runs/{tracker.run_id}"


def test_an_artifact_that_cannot_be_read_costs_one_warning_and_not_the_run(store, tmp_path, caplog):
    with Tracker(TrackingConfig(uri=store), tmp_path) as tracker:
        tracker.log_artifact(tmp_path / "gone")
        tracker.log_metrics({"loss": 1.0}, 1)
    assert [r.getMessage().split(":")[0] for r in caplog.records] == [
        f"artifact {tmp_path}/gone was not uploaded to MLflow"
    ]
    run = client_of(store).get_run(tracker.run_id)
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"loss": 1.0})


def test_a_resumed_job_appends_also_after_half_a_line(store, tmp_path):
    whole = '{"step": 1, "time": 0.0, "metrics": {"loss": 2.0}}\n'
    (tmp_path / "metrics.jsonl").write_text(whole + '{"step": 2, "ti')
    with Tracker(TrackingConfig(uri=store), tmp_path) as tracker:
        tracker.log_metrics({"loss": 1.0}, 2)
    first, broken, last = tracker.file.read_text().splitlines()
    assert (first + "\n", broken) == (whole, '{"step": 2, "ti')
    assert json.loads(last)["metrics"] == {"loss": 1.0}


def test_disabled_does_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Tracker(TrackingConfig(), tmp_path / "run", enabled=False) as tracker:
        tracker.log_params({"a": 1})
        tracker.log_metrics({"loss": 1.0}, 1)
        tracker.set_tags({"a": 1})
        tracker.log_artifact(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert tracker.run_id is None
    assert tracker.describe() == "tracking is off in this process"


def test_a_metric_that_is_not_a_number_is_refused(store, tmp_path):
    with (
        Tracker(TrackingConfig(uri=store), tmp_path) as tracker,
        pytest.raises(ValueError, match="metric 'loss' must be a number, got 'low'"),
    ):
        tracker.log_metrics({"loss": "low"}, 1)


def test_a_run_lies_below_its_parent_and_goes_on_where_it_was_left(store, tmp_path):
    with Tracker(TrackingConfig(uri=store, run_name="all"), tmp_path / "all") as parent:
        with Tracker(TrackingConfig(uri=store), tmp_path / "one", parent=parent) as child:
            child.log_metrics({"loss": 1.0}, 1)
        parent.log_metrics({"done": 1.0}, 1)
        parent.log_params({"seeds": [0]})
    run = client_of(store).get_run(child.run_id)
    assert run.data.tags["mlflow.parentRunId"] == parent.run_id
    with Tracker(TrackingConfig(uri=store), tmp_path / "all", run_id=parent.run_id) as again:
        again.log_params({"seeds": [0, 1], "more": 1})  # MLflow would refuse another value of the first
        again.log_metrics({"done": 2.0}, 2)
    assert again.run_id == parent.run_id
    found = client_of(store).get_run(parent.run_id)
    assert (found.info.run_name, found.info.status, found.data.metrics["done"]) == ("all", "FINISHED", 2.0)
    assert found.data.params == {"seeds": "[0]", "more": "1"}


def test_what_an_ended_job_left_open_below_its_run_is_told_apart(store, tmp_path):
    with Tracker(TrackingConfig(uri=store), tmp_path / "all") as parent:
        with Tracker(TrackingConfig(uri=store), tmp_path / "done", parent=parent) as done:
            done.set_tags({"stage": "final"})
        client = client_of(store)
        tags = {"mlflow.parentRunId": parent.run_id, "stage": "final"}
        cut = client.create_run(client.get_run(done.run_id).info.experiment_id, tags=tags)
    with Tracker(TrackingConfig(uri=store), tmp_path / "all", run_id=parent.run_id):
        pass
    found = {name: client.get_run(run) for name, run in (("cut", cut.info.run_id), ("done", done.run_id))}
    assert {n: (run.info.status, run.data.tags["stage"]) for n, run in found.items()} == {
        "cut": ("KILLED", "interrupted"),
        "done": ("FINISHED", "final"),
    }


def test_a_run_that_the_store_does_not_have_is_begun_anew(store, tmp_path, caplog):
    with Tracker(TrackingConfig(uri=store), tmp_path, run_id="0" * 32) as tracker:
        tracker.log_metrics({"loss": 1.0}, 1)
    assert caplog.text == ""
    assert tracker.run_id != "0" * 32
    assert client_of(store).get_run(tracker.run_id).data.metrics == {"loss": 1.0}


def test_a_parent_that_failed_leaves_its_child_alone(store, closed_port, tmp_path):
    unreachable = TrackingConfig(uri=f"http://127.0.0.1:{closed_port}", timeout=1.0)
    with (
        Tracker(unreachable, tmp_path / "all") as parent,
        Tracker(TrackingConfig(uri=store), tmp_path / "one", parent=parent) as child,
    ):
        child.log_metrics({"loss": 1.0}, 1)
    run = client_of(store).get_run(child.run_id)
    assert run.data.metrics == {"loss": 1.0}
    assert "mlflow.parentRunId" not in run.data.tags
