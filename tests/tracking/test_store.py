"""A new SQLite store that several jobs want at once, or that a job was killed in making."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import mlflow  # here, so that it is once for all processes that are forked below
import mlflow.store.db.utils
import pytest
from mlflow import MlflowClient

from trex_ds.tracking.settings import TrackingConfig
from trex_ds.tracking.tracker import Tracker

FORK = multiprocessing.get_context("fork")


def run_job(uri: str, folder: Path) -> None:
    with Tracker(TrackingConfig(uri=uri), folder) as tracker:
        tracker.log_metrics({"loss": 1.0}, 0)


def killed_while_it_makes_the_store(uri: str, folder: Path) -> None:
    upgrade = mlflow.store.db.utils._upgrade_db

    def upgrade_half(engine) -> None:
        upgrade(engine)
        with engine.connect() as connection:
            connection.exec_driver_sql("DROP TABLE alembic_version")  # written last
        os._exit(9)

    mlflow.store.db.utils._upgrade_db = upgrade_half
    run_job(uri, folder)


def tracked(uri: str) -> list[tuple[str, str, dict]]:
    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("trex_ds").experiment_id])
    return sorted((run.info.run_name, run.info.status, run.data.metrics) for run in runs)


def test_jobs_that_begin_at_once_with_a_new_store_are_all_tracked(tmp_path):
    uri = f"sqlite:///{tmp_path}/new/m.db"
    jobs = [FORK.Process(target=run_job, args=(uri, tmp_path / f"run{i}")) for i in range(4)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert tracked(uri) == [(f"run{i}", "FINISHED", {"loss": 1.0}) for i in range(4)]
    assert (tmp_path / "new" / "m.db").stat().st_mode & 0o777 == 0o666 & ~umask()


def test_a_job_that_is_killed_while_it_makes_the_store_does_not_break_the_next(tmp_path):
    uri = f"sqlite:///{tmp_path}/m.db"
    killed = FORK.Process(target=killed_while_it_makes_the_store, args=(uri, tmp_path / "killed"))
    killed.start()
    killed.join()
    assert killed.exitcode == 9
    assert not (tmp_path / "m.db").exists()
    run_job(uri, tmp_path / "next")
    assert tracked(uri) == [("next", "FINISHED", {"loss": 1.0})]


@pytest.mark.parametrize("query", ["", "?timeout=30"])
def test_a_store_is_made_where_its_uri_says(tmp_path, monkeypatch, query):
    monkeypatch.chdir(tmp_path)
    run_job(f"sqlite:///m.db{query}", tmp_path / "run")
    assert sorted(path.name for path in tmp_path.iterdir() if "m.db" in path.name) == [".m.db.lock", "m.db"]
    assert tracked(f"sqlite:///{tmp_path}/m.db") == [("run", "FINISHED", {"loss": 1.0})]


def umask() -> int:
    found = os.umask(0)
    os.umask(found)
    return found
