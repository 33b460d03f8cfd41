from __future__ import annotations

import json
import logging
import random
import tracemalloc

import pytest

from tests.tasks.reading import prompts, read, sums, write
from trex_ds.tasks.records import FIELDS


def test_split_has_all_examples_once_in_about_the_fraction(tmp_path):
    source = write(tmp_path / "sums.jsonl", sums(0, 2000))
    split = read(source, evaluation_fraction=0.2)
    assert sorted(prompts(split.train + split.evaluation)) == sorted(r["prompt"] for r in sums(0, 2000))
    assert not {*prompts(split.train)} & {*prompts(split.evaluation)}
    assert 340 < len(split.evaluation) < 460  # 3.3 standard deviations
    assert prompts(read(source, evaluation_fraction=0.2, seed=1).evaluation) != prompts(split.evaluation)


def test_split_depends_neither_on_order_nor_on_other_rows(tmp_path):
    records = sums(0, 200)
    split = read(write(tmp_path / "sums.jsonl", records))
    more = records + sums(200, 300)
    random.Random(0).shuffle(more)
    other = read(write(tmp_path / "sums.jsonl", more))
    assert {*prompts(split.evaluation)} <= {*prompts(other.evaluation)}
    assert {*prompts(split.train)} <= {*prompts(other.train)}


def test_equal_prompts_fall_on_one_side(tmp_path):
    records = [{**record, "answer": answer} for record in sums(0, 100) for answer in ("a", "b")]
    split = read(write(tmp_path / "sums.jsonl", records), evaluation_fraction=0.3)
    assert len(split.train) + len(split.evaluation) == 200
    assert not {*prompts(split.train)} & {*prompts(split.evaluation)}


def test_caps_choose_by_seed_and_not_by_order(tmp_path):
    records = sums(0, 300)
    source = write(tmp_path / "sums.jsonl", records)
    caps = {"train_examples": 20, "evaluation_examples": 5}
    everything, capped = read(source), read(source, **caps)
    assert (len(capped.train), len(capped.evaluation)) == (20, 5)
    assert [p for p in prompts(everything.train) if p in prompts(capped.train)] == prompts(capped.train)
    assert prompts(capped.train) != prompts(everything.train)[:20]
    reverse = read(write(tmp_path / "sums.jsonl", records[::-1]), **caps)
    assert prompts(reverse.train)[::-1] == prompts(capped.train)
    assert prompts(reverse.evaluation)[::-1] == prompts(capped.evaluation)
    # A lower cap leaves some of what a higher one leaves.
    assert {*prompts(read(source, train_examples=10).train)} < {*prompts(capped.train)}


def test_caps_hold_for_each_task_and_count_repeated_examples(tmp_path):
    records = sums(0, 50) + sums(0, 50, task="other") + 30 * sums(50, 51, task="same")
    split = read(write(tmp_path / "sums.jsonl", records), train_examples=7, evaluation_examples=0)
    assert [e.task for e in split.train] == ["sums"] * 7 + ["other"] * 7 + ["same"] * 7


def test_side_capped_at_zero_leaves_everything_to_the_other(tmp_path):
    source = write(tmp_path / "sums.jsonl", sums(0, 30))
    only_train, only_evaluation = read(source, evaluation_examples=0), read(source, train_examples=0)
    assert prompts(only_train.train) == prompts(only_evaluation.evaluation) == [r["prompt"] for r in sums(0, 30)]
    assert only_train.evaluation == only_evaluation.train == []


def test_caps_above_what_there_is_warn(tmp_path, caplog):
    path = tmp_path / "sums.jsonl"
    split = read(write(path, sums(0, 100)), train_examples=500)
    assert len(split.train) < 100
    assert caplog.messages == [f"{path}: train_examples is 500, task 'sums' has only {len(split.train)}"]


def test_evaluation_source_takes_its_prompts_from_training(tmp_path, caplog):
    test = write(tmp_path / "test.jsonl", sums(90, 120))
    source = write(tmp_path / "sums.jsonl", sums(0, 100))
    with caplog.at_level(logging.WARNING):
        # Those that the cap leaves out are no training examples either.
        split = read(source, evaluation_source=test, evaluation_examples=5)
    assert {example.task for example in split.train + split.evaluation} == {"sums"}
    assert prompts(split.train) == [r["prompt"] for r in sums(0, 90)]
    assert len(split.evaluation) == 5
    assert {*prompts(split.evaluation)} < {r["prompt"] for r in sums(90, 120)}
    assert "dropped 10 of 100 training examples" in caplog.text


def test_prompts_of_different_conversations_are_different(tmp_path):
    def talk(start: str) -> dict:
        turns = [start, "Hello", "Go on", start]
        return {"messages": [{"role": r, "content": c} for r, c in zip(["user", "assistant"] * 2, turns, strict=True)]}

    test = write(tmp_path / "test.jsonl", [talk("a")])
    split = read(write(tmp_path / "train.jsonl", [talk("a"), talk("b")]), evaluation_source=test)
    assert [example.answer for example in split.train] == ["b"]


def test_task_without_evaluation_examples_is_refused_with_numbers(tmp_path):
    source = write(tmp_path / "sums.jsonl", sums(0, 100) + sums(100, 101, task="lonely"))
    sizes = []
    for fraction in (0.001, 0.999):
        with pytest.raises(ValueError, match=r"sums\.jsonl: .*or name other data for evaluation") as caught:
            read(source, evaluation_fraction=fraction)
        sizes.append("task 'lonely' has 1 training and 0 evaluation examples" in str(caught.value))
    assert sizes == [True, False]


def test_evaluation_source_of_other_tasks_is_refused_unless_a_cap_is_zero(tmp_path):
    source = write(tmp_path / "sums.jsonl", sums(0, 10))
    test = write(tmp_path / "test.jsonl", sums(10, 15, task="other"))
    with pytest.raises(ValueError, match=r"'other' has 0 training and 5 .*'sums' has 10 training and 0 evaluation"):
        read(source, evaluation_source=test)
    assert prompts(read(test, train_examples=0).evaluation) == [r["prompt"] for r in sums(10, 15)]


def test_no_example_comes_before_all_rows_have_been_checked(tmp_path):
    path = tmp_path / "mine.jsonl"
    write(path, sums(0, 100))
    with path.open("a") as file:
        file.write("{\n")
    got = []
    with pytest.raises(ValueError, match="1 bad row"):
        got += read(f"file:{path}").train
    assert got == []


def test_bad_rows_of_both_tables_are_told_together(tmp_path):
    for name, count in (("train", 25), ("test", 3)):
        (tmp_path / f"{name}.jsonl").write_text('{"prompt": "p", "answer": "a"}\n' + "[]\n" * count)
    train, test = tmp_path / "train.jsonl", tmp_path / "test.jsonl"
    with pytest.raises(ValueError, match="bad row") as caught:
        read(f"file:{train}", evaluation_source=f"file:{test}")
    lines = str(caught.value).splitlines()
    problem = "must be an object with prompt and answer, or messages, got []"
    assert lines == [
        f"{test}: 3 bad rows",
        f"{train}: 25 bad rows",
        f"{test}:2: {problem} (and 2 more rows like it)",
        f"{train}:2: {problem} (and 24 more rows like it)",
    ]


def test_faults_beyond_the_first_twenty_kinds_are_counted(tmp_path):
    path = tmp_path / "mine.jsonl"
    rows = [{"prompt": "p", "answer": "a", "x" * (i + 3): 1} for i in range(23)]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0], rows[22]]))
    with pytest.raises(ValueError, match="25 bad rows") as caught:
        read(f"file:{path}")
    lines = str(caught.value).splitlines()
    assert lines[1] == f"{path}:1: unknown key 'xxx'; known: {', '.join(FIELDS)} (and 1 more rows like it)"
    assert [line.split(": ")[0] for line in lines[2:-1]] == [f"{path}:{i}" for i in range(2, 21)]
    assert lines[-1] == "... and 4 more"


@pytest.mark.battery
@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_memory_does_not_grow_with_the_training_examples(tmp_path, ending):
    peaks = []
    for rows in (2_000, 20_000):
        source = write(tmp_path / f"{rows}.{ending}", sums(0, rows, system="Be brief. " * 20))
        config = {"train_examples": 1_000, "evaluation_examples": 100}
        read(source, **config)  # imports and caches
        tracemalloc.start()
        read(source, **config)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0]
