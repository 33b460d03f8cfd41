from __future__ import annotations

import json
import logging
import random
from pathlib import Path

import pytest

from trex_ds.tasks import Task, TaskConfig, exact_match, load_tasks


def write(path: Path, records: list[dict]) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return f"file:{path}"


def sums(start: int, end: int, **more) -> list[dict]:
    return [{"prompt": f"{i} + 1 =", "answer": str(i + 1), **more} for i in range(start, end)]


def prompts(examples) -> list[str]:
    return [example.prompt for example in examples]


def load_one(source: str, **settings) -> Task:
    (task,) = load_tasks([TaskConfig(source, **settings)])
    return task


def test_one_file_holds_many_tasks(tmp_path):
    choices = ["yes", "no"]
    records = sums(0, 100) + [
        {"prompt": f"Is {i} even?", "answer": choices[i % 2], "task": "parity", "choices": choices} for i in range(100)
    ]
    plain, parity = load_tasks([TaskConfig(write(tmp_path / "numbers.jsonl", records), weight=0.5)])
    assert (plain.name, parity.name) == ("numbers", "parity")
    assert plain.weight == parity.weight == 0.5
    assert plain.score is exact_match
    assert {e.choices for e in plain.train} == {()}
    assert {e.choices for e in parity.train + parity.evaluation} == {("yes", "no")}
    example = parity.evaluation[0]
    number = int(example.prompt.split()[1])
    assert (example.task, example.answer) == ("parity", choices[number % 2])


def test_split_has_all_examples_once_in_about_the_fraction(tmp_path):
    source = write(tmp_path / "sums.jsonl", sums(0, 2000))
    task = load_one(source, evaluation_fraction=0.2)
    assert sorted(prompts(task.train + task.evaluation)) == sorted(r["prompt"] for r in sums(0, 2000))
    assert not {*prompts(task.train)} & {*prompts(task.evaluation)}
    assert 340 < len(task.evaluation) < 460  # 3.3 standard deviations
    assert prompts(load_one(source, evaluation_fraction=0.2, seed=1).evaluation) != prompts(task.evaluation)


def test_split_depends_neither_on_order_nor_on_other_lines(tmp_path):
    records = sums(0, 200)
    task = load_one(write(tmp_path / "sums.jsonl", records))
    more = records + sums(200, 300)
    random.Random(0).shuffle(more)
    other = load_one(write(tmp_path / "sums.jsonl", more))
    assert {*prompts(task.evaluation)} <= {*prompts(other.evaluation)}
    assert {*prompts(task.train)} <= {*prompts(other.train)}


def test_equal_prompts_fall_on_one_side(tmp_path):
    records = [{**record, "answer": answer} for record in sums(0, 100) for answer in ("a", "b")]
    task = load_one(write(tmp_path / "sums.jsonl", records), evaluation_fraction=0.3)
    assert len(task.train) + len(task.evaluation) == 200
    assert not {*prompts(task.train)} & {*prompts(task.evaluation)}


def test_caps_choose_by_seed_and_not_by_order(tmp_path):
    records = sums(0, 300)
    source = write(tmp_path / "sums.jsonl", records)
    caps = {"train_examples": 20, "evaluation_examples": 5}
    everything, task = load_one(source), load_one(source, **caps)
    assert (len(task.train), len(task.evaluation)) == (20, 5)
    assert [p for p in prompts(everything.train) if p in prompts(task.train)] == prompts(task.train)
    assert prompts(task.train) != prompts(everything.train)[:20]
    reverse = load_one(write(tmp_path / "sums.jsonl", records[::-1]), **caps)
    assert prompts(reverse.train)[::-1] == prompts(task.train)
    assert prompts(reverse.evaluation)[::-1] == prompts(task.evaluation)


def test_caps_above_what_there_is_warn(tmp_path, caplog):
    path = tmp_path / "sums.jsonl"
    task = load_one(write(path, sums(0, 100)), train_examples=500)
    assert len(task.train) < 100
    assert caplog.messages == [f"{path}: train_examples is 500, task 'sums' has only {len(task.train)}"]


def test_evaluation_source_takes_its_prompts_from_training(tmp_path, caplog):
    test = write(tmp_path / "test.jsonl", sums(90, 120))
    source = write(tmp_path / "sums.jsonl", sums(0, 100))
    with caplog.at_level(logging.WARNING):
        task = load_one(source, evaluation_source=test)
    assert task.name == "sums"
    assert prompts(task.train) == [r["prompt"] for r in sums(0, 90)]
    assert prompts(task.evaluation) == [r["prompt"] for r in sums(90, 120)]
    assert "dropped 10 of 100 training examples" in caplog.text


def test_task_without_evaluation_examples_is_refused_with_numbers(tmp_path):
    source = write(tmp_path / "sums.jsonl", sums(0, 100) + sums(100, 101, task="lonely"))
    sizes = []
    for fraction in (0.001, 0.999):
        with pytest.raises(ValueError, match=r"sums\.jsonl: .*evaluation_source") as caught:
            load_tasks([TaskConfig(source, evaluation_fraction=fraction)])
        sizes.append("task 'lonely' has 1 training and 0 evaluation examples" in str(caught.value))
    assert sizes == [True, False]


def test_evaluation_source_of_other_tasks_is_refused(tmp_path):
    source = write(tmp_path / "sums.jsonl", sums(0, 10))
    test = write(tmp_path / "test.jsonl", sums(10, 15, task="other"))
    with pytest.raises(ValueError, match=r"'sums' has 10 training and 0 evaluation .*'other' has 0 training and 5"):
        load_tasks([TaskConfig(source, evaluation_source=test)])


GOOD = '{"prompt": "p", "answer": "a"}'


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "not JSON: Expecting property name"),
        ("3", "must be an object with prompt and answer, got 3"),
        ('{"answer": "a"}', "prompt is missing"),
        ('{"prompt": "p"}', "answer is missing"),
        ('{"prompt": " ", "answer": "a"}', 'prompt must be text that is not empty, got " "'),
        ('{"prompt": "p", "answer": 7}', "answer must be text that is not empty, got 7"),
        ('{"prompt": "p", "answer": "a", "task": null}', "task must be text that is not empty, got null"),
        ('{"prompt": "p", "answer": "a", "choices": "ab"}', 'choices must be a list of at least two texts, got "ab"'),
        ('{"prompt": "p", "answer": "a", "choices": ["a"]}', 'choices must be a list of at least two texts, got ["a"]'),
        ('{"prompt": "p", "answer": "a", "choices": ["a", 1]}', "choices must be a list of at least two texts"),
        ('{"prompt": "p", "answer": "a", "choices": ["a", "b", "a"]}', "choices has one twice"),
        ('{"prompt": "p", "answer": "a", "choices": ["b", "c"]}', 'answer "a" is not among the choices ["b", "c"]'),
        ('{"promt": "p", "answer": "a"}', "unknown key 'promt'; did you mean prompt?; prompt is missing"),
        ('{"prompt": "p", "answer": "a", "zzz": 1}', "unknown key 'zzz'; known: prompt, answer, task, choices"),
        ('{"prompt": "p", "answer": "\\ud800"}', "has half of a surrogate pair"),
    ],
)
def test_bad_line_is_named_by_file_and_line(tmp_path, line, problem):
    path = tmp_path / "mine.jsonl"
    path.write_text(f"{GOOD}\n\n{line}\n{GOOD}\n")
    with pytest.raises(ValueError, match="1 bad line") as caught:
        load_tasks([TaskConfig(f"file:{path}")])
    head, detail = str(caught.value).splitlines()
    assert head == f"{path}: 1 bad line"
    assert detail.startswith(f"{path}:3: ")
    assert problem in detail


def test_line_that_is_not_utf8(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_bytes(GOOD.encode() + b'\n{"prompt": "\xff"}\n')
    with pytest.raises(ValueError, match=r"mine.jsonl:2: not UTF-8"):
        load_tasks([TaskConfig(f"file:{path}")])


def test_byte_order_mark_is_no_error(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + "".join(json.dumps(r) + "\n" for r in sums(0, 100)).encode())
    task = load_one(f"file:{path}")
    assert "0 + 1 =" in prompts(task.train + task.evaluation)


def test_all_bad_lines_are_counted_and_twenty_shown(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text(f"{GOOD}\n" + "[]\n" * 25)
    with pytest.raises(ValueError, match="25 bad lines") as caught:
        load_tasks([TaskConfig(f"file:{path}")])
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[0] for line in lines[1:-1]] == [f"{path}:{number}" for number in range(2, 22)]
    assert lines[-1] == "... and 5 more"


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_empty_file_is_refused(tmp_path, text):
    path = tmp_path / "mine.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"{path}: no examples; write one JSON object a line"):
        load_tasks([TaskConfig(f"file:{path}")])
