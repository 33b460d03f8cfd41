"""What each rank does in `test_all_ranks_get_equal_examples`; importable, so that other processes can run it."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist

from trex_ds.tasks import TaskConfig, load_tasks


def run(rank: int, folder: Path) -> None:
    store = dist.FileStore(str(folder / "store"), 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=120))
    # ransom_note is one of the tasks that come out differently in every process.
    (task,) = load_tasks([TaskConfig("gym:ransom_note", train_examples=20, evaluation_examples=5)])
    found = {
        "prompts": [example.prompt for example in task.train + task.evaluation],
        "scores": [task.score(example, example.answer) for example in task.evaluation],
    }
    (folder / f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()
