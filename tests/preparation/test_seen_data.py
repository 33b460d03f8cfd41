"""A job that goes on from a checkpoint goes on with the data that it was trained on so far."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.data.tokenizers import CHATML, make_tokenizer
from tests.training.jobs import write_recipe
from tests.training.preparations import prepare_file, read, use_embedder
from trex_ds.config import ConfigError, read_recipe
from trex_ds.preparation.seen_data import describe_data, write_data
from trex_ds.training.recipe import Recipe

RESUME = ("--training.resume", "true")
OTHER = (*RESUME, "--training.resume_with_other_data", "true")


@pytest.fixture
def interrupted(tmp_path, monkeypatch) -> Path:
    """The recipe of a job that has written what it trains on, its clusters and a checkpoint."""
    use_embedder(monkeypatch)
    file = write_recipe(tmp_path, evaluation__every=None)
    prepared = prepare_file(file)
    output = tmp_path / "run"
    (output / "checkpoint-2").mkdir(parents=True)
    assert prepared.centroids is not None
    prepared.centroids.save(output)
    resumed = read(file, *RESUME)
    write_data(describe_data(resumed.data, resumed.seed, prepared.store, prepared.indices), output)
    return file


def rewrite(file: Path, change) -> None:
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("\n".join(map(json.dumps, change(rows))))


def other_answers(rows: list[dict]) -> list[dict]:
    return [{**row, "answer": row["answer"] + "!"} if row["task"] == "sum" else row for row in rows]


@pytest.mark.parametrize(
    ("change", "arguments", "problem"),
    [
        (other_answers, (), "task 'sum' has other examples, or other tokens of them. Go on with"),
        (lambda rows: [r for r in rows if r["task"] != "sum"], (), "task 'sum' is gone"),
        (lambda rows: [*rows, *({**r, "task": "more"} for r in rows)], (), "task 'more' is new"),
        (
            lambda rows: [*rows, *({**r, "prompt": r["prompt"] + "?"} for r in rows)],
            (),
            r"task 'spell' has \d+ rows an ep",
        ),
        (lambda rows: rows[::-1], (), "the examples have another order"),
        (None, ("--seed", "5"), "the seed is 5, and was 0"),
        (None, ("--data.packing", "true"), "the row of tokens is 96, and was None"),
        (None, ("--tasks.0.weight", "2.0"), r"task 'spell' has \d+ rows an epoch, and had \d+"),
        (
            None,
            ("--data.system_prompt", "Be brief."),
            "task 'spell' has other examples, or other tokens of them; task 'su",
        ),
    ],
)
def test_other_data_is_refused_unless_it_is_meant(interrupted, change, arguments, problem):
    prepare_file(interrupted, *RESUME)
    if change is not None:
        rewrite(interrupted.parent / "tasks.jsonl", change)
    with pytest.raises(
        ConfigError, match=rf"training.resume: the checkpoints of .*run were trained on other data: .*{problem}"
    ):
        prepare_file(interrupted, *RESUME, *arguments)
    prepare_file(interrupted, *OTHER, *arguments)


def test_another_tokenizer_is_other_data(interrupted):
    colon = CHATML.replace("message['role'] + '\n'", "message['role'] + ':\n'").replace("assistant\n", "assistant:\n")
    make_tokenizer(colon).save_pretrained(interrupted.parent / "model")
    with pytest.raises(ConfigError, match="task 'sum' has other examples, or other tokens of them"):
        prepare_file(interrupted, *RESUME)


def test_what_changes_nothing_that_is_trained_on(interrupted):
    tasks = interrupted.parent / "tasks.jsonl"
    tasks.rename(interrupted.parent / "moved.jsonl")
    moved = ("--tasks.0.source", f"file:{interrupted.parent}/moved.jsonl", "--evaluation.batch_size", "1")
    prepare_file(
        interrupted, *RESUME, *moved, "--training.max_steps", "9", "--data.cache", str(interrupted.parent / "c2")
    )


def test_a_checkpoint_without_a_record_of_its_data_is_gone_on_from_with_a_warning(interrupted, caplog):
    (interrupted.parent / "run" / "data.json").unlink()
    rewrite(interrupted.parent / "tasks.jsonl", other_answers)
    prepare_file(interrupted, *RESUME)
    assert "has no data.json, so it is unknown whether the checkpoint saw the same data" in caplog.text


def test_meant_without_a_resume_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="resume_with_other_data: has no effect without resume"):
        read_recipe(Recipe, ["--config", str(write_recipe(tmp_path)), *OTHER[2:]], "")
