"""One GPU in five minutes: equality tests, short real trainings in bf16 and nf4, and what they hold in its memory.

    make gpu-check        (or: python benchmarks/gpu_check.py [--output FILE])

Ends with code 1 if a test fails, a training does, or nf4 does not take less of the device's memory than bf16.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import torch

from trex_ds.environment import describe_environment
from trex_ds.files import write_json

TRAINING = {
    "bf16": ["--training.deepspeed", "ds_configs/zero3_bf16.json"],
    "nf4": ["--training.deepspeed", "ds_configs/zero3_4bit.json", "--model.quantization", "nf4"],
}


def run_tests(folder: Path) -> dict[str, Any]:
    """Run tests/gpu and count: how many passed, failed and were skipped, and which failed."""
    report = folder / "tests.xml"
    subprocess.run([sys.executable, "-m", "pytest", "tests/gpu", f"--junitxml={report}"], check=False)
    cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    failed = [case.get("name") for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = [case.get("name") for case in cases if case.find("skipped") is not None]
    return {"passed": len(cases) - len(failed) - len(skipped), "failed": failed, "skipped": skipped}


def train(folder: Path, name: str) -> dict[str, Any]:
    """The quickstart on this GPU: its accuracies and speed, and what it holds after the first step."""
    output = folder / name
    recipe = ["--config", "launch/recipes/quickstart.yaml", *TRAINING[name], "--output_dir", str(output)]
    places = ["--tracking.uri", f"sqlite:///{folder}/mlflow.db"]
    subprocess.run([sys.executable, "launch/train.py", *recipe, *places], check=True)
    summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
    (held,) = json.loads((output / "memory.json").read_text(encoding="utf-8"))["after the first step"]
    kept = ("mean", "tokens_per_second", "trainable_parameters", "seconds")
    return {key: summary[key] for key in kept} | {"held": {k: v for k, v in held.items() if k != "host"}}


def main() -> int:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/gpu_check.json"))
    given = parser.parse_args()
    if not torch.cuda.is_available():
        print(f"error: torch {torch.__version__} sees no GPU here; make gpu-check is for a machine with one")
        return 2
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        tests = run_tests(Path(folder))
        trainings = {name: train(Path(folder), name) for name in TRAINING}
    result = {
        "tests": tests,
        "trainings": trainings,
        "seconds": time.perf_counter() - start,
        "seed": 0,
        "environment": describe_environment(),
    }
    write_json(given.output, result)
    print(json.dumps({k: v for k, v in result.items() if k != "environment"}, indent=1))
    nf4, bf16 = (trainings[name]["held"] for name in ("nf4", "bf16"))
    less_base = nf4["roles"]["base"]["held_bytes"] < bf16["roles"]["base"]["held_bytes"]
    smaller = less_base and nf4["peak_bytes"] < bf16["peak_bytes"]
    return 0 if smaller and not tests["failed"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
