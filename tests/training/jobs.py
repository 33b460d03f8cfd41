"""Whole jobs in small: a random tiny Llama, the real embedder, a JSONL file of sums and spellings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import tiny_llama
from tests.data.tokenizers import CHATML, make_tokenizer

ROOT = Path(__file__).parents[2]
ZERO3: dict[str, Any] = {
    "bf16": {"enabled": False},
    "zero_optimization": {
        "stage": 3,
        "overlap_comm": False,
        # DeepSpeed's defaults keep tensors as small as these gathered, and hide mistakes.
        "stage3_param_persistence_threshold": 0,
        "stage3_max_live_parameters": 0,
        "stage3_max_reuse_distance": 0,
    },
    "optimizer": {"type": "AdamW", "params": {"lr": "auto", "weight_decay": "auto", "torch_adam": True}},
    "gradient_clipping": "auto",
    "gradient_accumulation_steps": "auto",
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
}


def write_model(folder: Path, **sizes: int) -> None:
    tokenizer = make_tokenizer(CHATML)
    tokenizer.save_pretrained(folder)
    model = tiny_llama(
        vocab_size=len(tokenizer),
        max_position_embeddings=256,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        attn_implementation="sdpa",
        **sizes,
    )
    model.save_pretrained(folder)


def write_tasks(file: Path) -> None:
    words = ["sun", "moon", "tree", "river", "cloud", "stone", "bread", "glass"]
    rows = [{"prompt": f"spell {w} backwards {i}", "answer": w[::-1], "task": "spell"} for i, w in enumerate(words * 2)]
    rows += [{"prompt": f"what is {a} + {b}?", "answer": str(a + b), "task": "sum"} for a in range(4) for b in range(5)]
    file.write_text("\n".join(map(json.dumps, rows)))


def write_recipe(folder: Path, **overrides: Any) -> Path:
    """A complete recipe in `folder`, with all that it names; `overrides` are by dotted name, dots as `__`."""
    if not (folder / "model").exists():
        write_model(folder / "model")
    if not (folder / "tasks.jsonl").exists():
        write_tasks(folder / "tasks.jsonl")
        (folder / "zero3.json").write_text(json.dumps(ZERO3))
    recipe: dict[str, Any] = {
        "output_dir": str(folder / "run"),
        "tasks": [{"source": f"file:{folder}/tasks.jsonl", "evaluation_fraction": 0.3}],
        "model": {"name": str(folder / "model"), "dtype": "float32"},
        "adapter": {"num_in_experts": 2, "num_out_experts": 3, "num_clusters": 6, "intuition_transform": "centered"},
        "data": {"system_prompt": "", "cache": str(folder / "cache"), "packing": False, "max_length": 96},
        "training": {
            "deepspeed": str(folder / "zero3.json"),
            "max_steps": 3,
            "learning_rate": 1e-2,
            "lr_scheduler": "constant",
            "micro_batch_size": 2,
            "log_every": 1,
            "timeout_minutes": 2,
        },
        # Something is held out in all jobs, so that they train on the same rows.
        "evaluation": {"batch_size": 3, "max_new_tokens": 6, "every": 100},
        "tracking": {"uri": f"sqlite:///{folder}/mlflow.db"},
    }
    for name, value in overrides.items():
        *sections, key = name.split("__")
        place = recipe
        for part in sections:
            place = place[part]
        place[key] = value
    file = folder / f"{Path(recipe['output_dir']).name}.yaml"
    file.write_text(yaml.safe_dump(recipe))
    return file


def run_job(file: Path) -> dict[str, Any]:
    """The job of a recipe in this process; losses by step, and the accuracies."""
    from trex_ds.config import read_recipe
    from trex_ds.training.job import train
    from trex_ds.training.recipe import Recipe

    recipe = read_recipe(Recipe, ["--config", str(file)], "")
    summary = train(recipe)
    return {
        "losses": losses(Path(recipe.output_dir)),
        "base": summary.base.items,
        "adapted": summary.adapted.items,
        "adapter": str(summary.adapter),
    }


def losses(output: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["metrics"]["train/loss"] for line in lines if "train/loss" in line["metrics"]}
