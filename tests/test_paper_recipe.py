"""The paper's recipe as it stands, on all its datasets in small: only sizes, steps and the model are overridden."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.ranks import run_ranks
from tests.tasks.paper_mirror import write_paper_mirror
from tests.training.jobs import ROOT, ZERO3, write_model

UNTRAINED = "bbh_zeroshot_boolean_expressions"
RECIPE = ROOT / "launch" / "recipes" / "paper_tasks.yaml"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("paper")
    write_paper_mirror(folder / "mirror")
    write_model(folder / "model")
    config = json.loads((folder / "model" / "config.json").read_text())
    # BBH asks for 256 new tokens.
    (folder / "model" / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 1024}))
    (folder / "zero3.json").write_text(json.dumps(ZERO3))
    return folder


def train_it(folder: Path) -> None:
    from trex_ds.config import read_recipe
    from trex_ds.training.job import train
    from trex_ds.training.recipe import Recipe

    overrides = {
        "output_dir": folder / "run",
        "model.name": folder / "model",
        "model.dtype": "float32",
        "data.mirror": folder / "mirror",
        "data.cache": folder / "cache",
        "training.deepspeed": folder / "zero3.json",
        "training.max_steps": 2,
        "training.warmup_steps": 0,
        "training.micro_batch_size": 1,
        "training.log_every": 1,
        "training.save_every": "null",
        "evaluation.batch_size": 64,
        "evaluation.every": 2,
        "tracking.uri": f"sqlite:///{folder}/mlflow.db",
    }
    given = [part for name, value in overrides.items() for part in (f"--{name}", str(value))]
    train(read_recipe(Recipe, ["--config", str(RECIPE), *given], ""))


def evaluate_it(folder: Path) -> None:
    from trex_ds.lm_evaluation.arguments import parse
    from trex_ds.lm_evaluation.run import run

    adapter = ("--adapter", str(folder / "run" / "adapter"), "--mirror", str(folder / "mirror"))
    run(
        parse(
            [*adapter, "--tasks", f"boolq,mmlu,{UNTRAINED}", "--output", str(folder / "table"), "--batch_size", "64"],
            "",
        )
    )


def test_trains_and_evaluates(folder):
    run_ranks(1, folder, train_it, folder)
    sources = [task["source"].removeprefix("lm_eval:") for task in yaml.safe_load(RECIPE.read_text())["tasks"]]
    summary = json.loads((folder / "run" / "summary.json").read_text())
    tasks = summary["tasks"]
    assert list(tasks) == sources
    assert [name for name, task in tasks.items() if not task["trained"]] == ["bbh_zeroshot"]
    assert tasks["mmlu"]["base"]["n"] == 57
    assert tasks["anli"]["base"]["n"] == 3 * 6
    trained = [task["adapted"]["value"] for name, task in tasks.items() if name != "bbh_zeroshot"]
    assert summary["mean"]["adapted"]["value"] == pytest.approx(sum(trained) / len(trained))
    assert summary["mean_untrained"]["adapted"] == tasks["bbh_zeroshot"]["adapted"]
    assert (folder / "run" / "adapter" / "adapter_model.safetensors").is_file()

    run_ranks(1, folder, evaluate_it, folder)
    table = json.loads((folder / "table" / "table.json").read_text())
    rows = {row["task"]: row for row in table["rows"]}
    assert {name: (row["n"], row["trained"]) for name, row in rows.items()} == {
        "boolq": (3, 1.0),
        "mmlu": (57, 1.0),
        UNTRAINED: (1, 0.0),
    }
    # Both have asked the same of the same adapter.
    assert rows["mmlu"]["value"] == pytest.approx(tasks["mmlu"]["adapted"]["value"])
    assert rows["boolq"]["base"] == pytest.approx(tasks["boolq"]["base"]["value"])
    (mean,) = table["means"]
    assert (mean["task"], mean["trained"]) == ("mean", 1.0)
    assert mean["value"] == pytest.approx((rows["boolq"]["value"] + rows["mmlu"]["value"]) / 2)
