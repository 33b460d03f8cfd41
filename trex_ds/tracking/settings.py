"""The place where a job is tracked."""

from __future__ import annotations

import os
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field

from trex_ds.config import section
from trex_ds.wording import did_you_mean

_SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks")
_SQLITE = "sqlite:///"


@section
class TrackingConfig:
    """Tracking of metrics: one MLflow run a job, and metrics.jsonl in the run's folder."""

    experiment: Annotated[str, Field(min_length=1)] = "trex_ds"
    """MLflow experiment; made if it does not exist."""
    run_name: str | None = None
    """Name of the run; null: the name of output_dir."""
    uri: str | None = None
    """MLflow store or server, as sqlite:///mlflow.db or http://host:5000; null: what the environment
    variable MLFLOW_TRACKING_URI says, else mlflow.db in the working directory."""
    timeout: Annotated[float, Field(gt=0)] = 10.0
    """Seconds that one request to a tracking server may take."""

    def problems(self) -> list[str]:
        """A URI that no MLflow store understands."""
        uri = self.resolved_uri()
        origin = "" if self.uri else " (from the environment variable MLFLOW_TRACKING_URI)"
        scheme = "databricks" if uri == "databricks" else uri.partition(":")[0] if ":" in uri else ""
        if scheme in ("", "file"):
            return [
                f"uri: {uri!r}{origin} is a folder, which MLflow no longer writes to; "
                "use a file as sqlite:///mlflow.db or a server as http://host:5000"
            ]
        known = {*_SCHEMES, *(plugin.name for plugin in entry_points(group="mlflow.tracking_store"))}
        if (name := scheme.partition("+")[0]) not in known:
            return [f"uri: {uri!r}{origin} has the unknown scheme {name!r}; {did_you_mean(name, sorted(known))}"]
        if scheme in ("http", "https") and not urlsplit(uri).hostname:
            return [f"uri: {uri!r}{origin} names no host; write {scheme}://host:port"]
        if scheme == "sqlite" and (not uri.startswith(_SQLITE) or not uri.removeprefix(_SQLITE).strip("/")):
            return [f"uri: {uri!r}{origin} names no file; write {_SQLITE}mlflow.db"]
        return []

    def resolved_uri(self) -> str:
        """`uri`, else the environment's, else a file here; SQLite paths made absolute."""
        uri = self.uri or os.environ.get("MLFLOW_TRACKING_URI") or f"{_SQLITE}mlflow.db"
        file = sqlite_file(uri)
        return f"{_SQLITE}{file}{''.join(uri.partition('?')[1:])}" if file else uri


def sqlite_file(uri: str) -> Path | None:
    """The absolute path of a SQLite URI's file; None for other stores."""
    path = uri.removeprefix(_SQLITE).partition("?")[0]
    return Path(path).absolute() if uri.startswith(_SQLITE) and path else None


def masked(uri: str) -> str:
    """`uri` without its password, for people to see."""
    password = urlsplit(uri).password
    return uri.replace(f":{password}@", ":***@") if password else uri
