"""A mirror of hub datasets in small: parquet files of made-up rows with the hub's columns, laid out as on the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Rows = list[dict[str, Any]]


def write_dataset(mirror: Path, hub_id: str, configs: dict[str, dict[str, Rows]]) -> Path:
    """`configs`: rows by config and split."""
    folder = mirror / hub_id
    lines = ["---", "configs:"]
    for config, splits in configs.items():
        lines += [f"- config_name: {config}", "  data_files:"]
        for split, rows in splits.items():
            (folder / config).mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_pylist(rows), folder / config / f"{split}-0.parquet")
            lines += [f"  - split: {split}", f"    path: {config}/{split}-*"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))
    return folder


def boolq(count: int, start: int = 0, label: int | None = None) -> Rows:
    return [
        {
            "question": f"is {i} even",
            "passage": f"Numbers such as {i} are even or odd.",
            "idx": i,
            "label": int(i % 2 == 0) if label is None else label,
        }
        for i in range(start, start + count)
    ]


def winogrande(count: int) -> Rows:
    return [
        {
            "sentence": f"The cat {i} saw the dog because _ was awake.",
            "option1": f"the cat {i}",
            "option2": "the dog",
            "answer": "12"[i % 2],
        }
        for i in range(count)
    ]


def copa(count: int) -> Rows:
    return [
        {
            "premise": f"The glass {i} fell.",
            "choice1": "It broke.",
            "choice2": "She laughed.",
            "question": ["effect", "cause"][i % 2],
            "idx": i,
            "label": i % 2,
        }
        for i in range(count)
    ]


def commonsense_qa(count: int) -> Rows:
    choices = {"label": list("ABCDE"), "text": ["bed", "closet", "rug", "table", "sea"]}
    return [
        {
            "id": str(i),
            "question": f"Where is shoe {i}? ",
            "question_concept": "shoe",
            "choices": choices,
            "answerKey": "ABCDE"[i % 5],
        }
        for i in range(count)
    ]


def multirc(count: int) -> Rows:
    return [
        {
            "paragraph": f"Text {i}.",
            "question": "What?",
            "answer": f"it {i}",
            "idx": {"paragraph": i, "question": 0, "answer": 0},
            "label": i % 2,
        }
        for i in range(count)
    ]


def write_mirror(mirror: Path) -> Path:
    """boolq, multirc, copa, winogrande and commonsense_qa, with a handful of rows each."""
    write_dataset(
        mirror,
        "aps/super_glue",
        {
            "boolq": {"train": boolq(12), "validation": boolq(7, 100), "test": boolq(3, 200, label=-1)},
            "multirc": {"train": multirc(6), "validation": multirc(5)},
            "copa": {"train": copa(6), "validation": copa(5)},
        },
    )
    write_dataset(
        mirror, "allenai/winogrande", {"winogrande_xl": {"train": winogrande(6), "validation": winogrande(5)}}
    )
    write_dataset(
        mirror, "tau/commonsense_qa", {"default": {"train": commonsense_qa(6), "validation": commonsense_qa(5)}}
    )
    return mirror
