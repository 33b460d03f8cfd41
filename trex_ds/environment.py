"""Origin of a result: date, hardware, versions."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from trex_ds.distributed import world_size

_PACKAGES = (
    "torch",
    "deepspeed",
    "transformers",
    "peft",
    "accelerate",
    "sentence-transformers",
    "scikit-learn",
    "mlflow",
    "lm_eval",
    "datasets",
)


def describe_environment() -> dict[str, Any]:
    """What a figure needs beside it to mean something; plain data for JSON."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "ranks": world_size(),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "threads_per_rank": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "python": platform.python_version(),
        "versions": installed_versions(("trex_ds", *_PACKAGES)),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions by package, without those that are not installed."""
    found = {}
    for package in packages:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
