"""The store that a job is tracked in."""

from __future__ import annotations

import pytest

from trex_ds.tracking.settings import TrackingConfig, masked


def test_default_is_a_database_in_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert TrackingConfig().resolved_uri() == f"sqlite:///{tmp_path}/mlflow.db"


def test_environment_is_respected_and_the_recipe_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    assert TrackingConfig().resolved_uri() == "http://host:5000"
    assert TrackingConfig(uri="sqlite:///a/b.db").resolved_uri() == f"sqlite:///{tmp_path}/a/b.db"
    assert TrackingConfig(uri="sqlite:////a/b.db").resolved_uri() == "sqlite:////a/b.db"


@pytest.mark.parametrize(
    "uri",
    [None, "http://h", "https://u:p@h:1/x", "sqlite:///x.db", "postgresql+psycopg2://u:p@h/db", "databricks",
     "databricks://profile"],
)  # fmt: skip
def test_good_uris(uri):
    assert TrackingConfig(uri=uri).problems() == []


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("htpp://host", "has the unknown scheme 'htpp'; did you mean http?"),
        ("gopher://host", "has the unknown scheme 'gopher'; known: "),
        ("runs", "is a folder, which MLflow no longer writes to"),
        ("file:///runs", "is a folder, which MLflow no longer writes to"),
        ("http:/host", "names no host; write http://host:port"),
        ("sqlite:///", "names no file; write sqlite:///mlflow.db"),
        ("sqlite://", "names no file; write sqlite:///mlflow.db"),
    ],
)
def test_bad_uris(uri, message):
    (problem,) = TrackingConfig(uri=uri).problems()
    assert problem.startswith(f"uri: {uri!r} ")
    assert message in problem


def test_bad_environment_is_named(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "htpp://host")
    (problem,) = TrackingConfig().problems()
    assert "(from the environment variable MLFLOW_TRACKING_URI)" in problem


def test_passwords_are_masked():
    assert masked("postgresql://me:se:cret@host/db") == "postgresql://me:***@host/db"
    assert masked("http://host:5000") == "http://host:5000"
