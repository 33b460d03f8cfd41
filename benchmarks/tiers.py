"""Minutes of make's checks and test tiers: python benchmarks/tiers.py [--output FILE] TARGET [TARGET ...].

Run it in the environment of `make environment`, with nothing else on the machine. A target that is in the file already
is replaced; one that fails is not recorded.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import time
from pathlib import Path

from trex_ds.environment import describe_environment
from trex_ds.files import write_json

TARGETS = ("check", "test-fast", "test")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="+", choices=TARGETS, metavar="TARGET")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/tiers.json"))
    given = parser.parse_args()
    for target in given.targets:
        for cache in (".mypy_cache", ".ruff_cache"):
            shutil.rmtree(cache, ignore_errors=True)
        start = time.perf_counter()
        subprocess.run(["make", target], check=True)
        seconds = time.perf_counter() - start
        found = json.loads(given.output.read_text(encoding="utf-8")) if given.output.is_file() else {}
        write_json(given.output, found | {target: {"seconds": seconds, "environment": describe_environment()}})


if __name__ == "__main__":
    main()
