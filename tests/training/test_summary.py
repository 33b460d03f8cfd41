"""What a finished job prints and writes."""

from __future__ import annotations

import json
from pathlib import Path

from trex_ds.evaluation.accuracy import Evaluation, Item
from trex_ds.training.summary import Summary, print_summary
from trex_ds.training.trainer import Seen

LONG = "a_task_with_a_name_that_is_longer_than_a_column_of_eighty_characters_in_all_can_ever_be"


def evaluation(answers: dict[str, list[tuple[str, float]]]) -> Evaluation:
    return Evaluation(
        [
            Item(task, f"{task}, question {number}:\n" + "so many words " * 40 + f"{number}?", "[right]", text, score)
            for task, given in answers.items()
            for number, (text, score) in enumerate(given)
        ]
    )


def make_summary() -> Summary:
    return Summary(
        base=evaluation({LONG: [("no\nidea " + "x" * 300, 0.0), ("[right]", 1.0)], "b": [("half", 0.5), ("", 0.0)]}),
        adapted=evaluation({LONG: [("[right]", 1.0), ("[right]", 1.0)], "b": [("", 0.0), ("[right]", 1.0)]}),
        trainable_parameters=10,
        base_parameters=1000,
        tokens_per_second=1.0,
        step_seconds=1.0,
        peak_bytes=1,
        seen=Seen(5, "c"),
        rows={},
        steps=2,
        seconds=3.0,
        adapter=Path("run/adapter"),
    )


def test_both_models_answer_the_first_example_of_each_task_and_no_name_is_cut(capsys):
    print_summary(make_summary(), "mlflow ui")
    lines = capsys.readouterr().out.splitlines()
    assert sum(LONG in line for line in lines) == 2  # in the table, and above its example
    start = lines.index("Answers to the first evaluation example of each task") + 1
    first, second = lines[start : start + 5], lines[start + 5 : start + 10]
    assert first[0] == LONG
    assert first[1].startswith("    prompt   ...")
    assert first[1].endswith("so many words 0?")
    assert len(first[1]) == len("    prompt   ") + 200
    assert first[2] == "    answer   [right]"
    assert first[3] == "    base     no idea " + "x" * (200 - len("no idea ") - 3) + "...  (wrong)"
    assert first[4] == "    adapted  [right]  (right)"
    assert second[0] == "b"
    assert second[3:] == ["    base     half  (score 0.50)", "    adapted    (wrong)"]


def test_the_summarys_file_has_the_examples_whole(tmp_path):
    summary = make_summary()
    summary.save(tmp_path / "summary.json", seed=0)
    first, second = json.loads((tmp_path / "summary.json").read_text())["examples"]
    assert first["task"] == LONG
    assert first["prompt"] == summary.base.items[0].prompt
    assert first["base"] == "no\nidea " + "x" * 300
    assert (second["answer"], second["base"], second["adapted"]) == ("[right]", "half", "")
