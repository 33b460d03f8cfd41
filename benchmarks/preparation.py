"""What preparing data costs, and whether its memory grows with the data: python benchmarks/preparation.py.

Prepares two corpora of procedural examples with launch/prepare.py over two ranks, each into a cache of its own,
and collects what every stage took on rank 0 (read and tokenize; embed, cluster and score).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from trex_ds.files import write_json

SEED = 0
TASKS = {
    "syllogism": {},
    "letter_counting": {"min_words": 5, "max_words": 10},
    "spell_backward": {"min_word_len": 3, "max_word_len": 12},
    "chain_sum": {"min_terms": 2, "max_terms": 6, "max_digits": 4},
}


def prepare(num_examples: int, ranks: int) -> dict[str, Any]:
    """The report of launch/prepare.py on this many examples."""
    with tempfile.TemporaryDirectory() as folder:
        counts = {"train_examples": num_examples // len(TASKS), "evaluation_examples": 10}
        recipe = {
            "output_dir": f"{folder}/run",
            "seed": SEED,
            "tasks": [
                {"source": f"gym:{name}", "options": options, "seed": SEED, **counts} for name, options in TASKS.items()
            ],
            "data": {"cache": f"{folder}/cache", "max_length": 256, "system_prompt": "Answer briefly."},
        }
        file = Path(folder) / "recipe.yaml"
        file.write_text(yaml.safe_dump(recipe), encoding="utf-8")
        script = ["launch/prepare.py", "--config", str(file)]
        launcher = [str(Path(sys.executable).parent / "deepspeed"), "--num_accelerators", str(ranks)]
        subprocess.run([*launcher, *script] if ranks > 1 else [sys.executable, *script], check=True)
        return json.loads((Path(folder) / "run" / "preparation.json").read_text(encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000], help="examples of each corpus")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/preparation.json"))
    given = parser.parse_args()
    reports = {size: prepare(size, given.ranks) for size in given.sizes}
    result = {
        "what": "launch/prepare.py on procedural examples, stages as on rank 0; peak_mib is of the process so far",
        "ranks": given.ranks,
        "tasks": TASKS,
        "seed": SEED,
        "corpora": {size: report["stages"] for size, report in reports.items()},
        "environment": reports[given.sizes[-1]]["environment"],
    }
    write_json(given.output, result)
    print(json.dumps(result["corpora"], indent=1))


if __name__ == "__main__":
    main()
