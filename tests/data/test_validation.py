from __future__ import annotations

import json
import re
from collections import Counter

import pytest

from tests.data.tokenizers import LLAMA2, NO_GENERATION_PROMPT, encode_example, make_tokenizer, with_control_tokens
from tests.tasks.reading import sums, write
from trex_ds.data.config import DataConfig
from trex_ds.data.validation import TaskReport, validate_tasks
from trex_ds.data.validation_report import histogram, print_validation, save_validation
from trex_ds.tasks.base import Example
from trex_ds.tasks.config import TaskConfig
from trex_ds.tasks.sources.file import FileSource

TOKENIZER = make_tokenizer()


def test_counts_of_a_crafted_file(tmp_path, capsys):
    train = [
        *sums(0, 6),
        *sums(0, 2),  # both again
        {"prompt": "0 + 1 =", "answer": "another"},  # no repetition: its answer is new
        {"prompt": "z" * 200, "answer": "long"},
    ]
    source = write(tmp_path / "sums.jsonl", train)
    elsewhere = write(tmp_path / "other.jsonl", sums(3, 5, task="other"))
    configs = [TaskConfig(source, evaluation_examples=0), TaskConfig(elsewhere, train_examples=0)]
    found = validate_tasks(configs, DataConfig(max_length=100), TOKENIZER, 8)
    assert found.problems == []
    report, other = found.tasks
    assert (report.task, report.source, report.train, report.evaluation) == ("sums", source, 10, 0)
    assert (report.duplicates, report.leaked, report.too_long) == (2, 2, 1)
    assert (report.empty_answers, report.unsupervised) == (0, 0)
    assert (other.task, other.train, other.evaluation, other.leaked) == ("other", 0, 2, 0)
    expected = Counter(
        len(encode_example(TOKENIZER, Example(r["prompt"], r["answer"], "sums"), None).ids) for r in train
    )
    assert report.lengths == expected

    print_validation(found)
    out = capsys.readouterr().out
    assert [len(re.findall(rf"│ {task} ", out)) for task in ("sums", "other")] == [3, 3]
    save_validation(found, tmp_path / "found.json")
    saved = json.loads((tmp_path / "found.json").read_text())
    assert saved["problems"] == []
    assert saved["tasks"][0]["quantiles"]["max"] == max(expected)
    assert saved["tasks"][0]["lengths"] == {str(length): count for length, count in expected.items()}


def test_answers_without_text_or_tokens(monkeypatch):
    # No file may hold these; other kinds of source may.
    made = [
        ("train", Example("a", "", "odd")),
        ("train", Example("how many letters", " ", "odd", plain=True)),
        ("evaluation", Example("b", " ", "odd")),
        ("train", Example("c", "fine", "odd")),
    ]
    monkeypatch.setattr(FileSource, "examples", lambda self: iter(made))
    (report,) = validate_tasks([TaskConfig("file:odd")], DataConfig(), TOKENIZER, 8).tasks
    assert (report.empty_answers, report.unsupervised) == (3, 1)


def test_everything_that_would_stop_training_is_told(tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text("{\n[]\n")
    long = [{"prompt": "z" * 200 + str(i), "answer": "y"} for i in range(40)]
    configs = [
        TaskConfig(f"file:{bad}"),
        TaskConfig(write(tmp_path / "long.jsonl", long)),
        TaskConfig(write(tmp_path / "twin.jsonl", sums(0, 40, task="sums"))),
        TaskConfig(write(tmp_path / "sums.jsonl", sums(40, 80))),
    ]
    found = validate_tasks(configs, DataConfig(max_length=50), TOKENIZER, 8)
    assert len(found.problems) == 3
    assert found.problems[0].startswith(f"tasks.0: {bad}: 2 bad rows\n{bad}:1: not JSON")
    long_report = found.tasks[0]
    assert found.problems[1] == (
        f"task 'long': all {long_report.train} training examples are longer than data.max_length 50; "
        "raise it or remove the task"
    )
    assert found.problems[2] == (
        f"2 tasks are named 'sums', of file:{tmp_path}/twin.jsonl, file:{tmp_path}/sums.jsonl; rename all but one"
    )


def test_what_the_tokenizer_refuses_is_a_problem(tmp_path):
    config = TaskConfig(write(tmp_path / "sums.jsonl", sums(0, 40)))
    (problem,) = validate_tasks([config], DataConfig(system_prompt="Be brief."), TOKENIZER, 8).problems
    assert problem.startswith("tasks.0: data.system_prompt 'Be brief.': the tokenizer")


def test_nothing_to_train_on(tmp_path):
    config = TaskConfig(write(tmp_path / "sums.jsonl", sums(0, 40)), train_examples=0)
    assert validate_tasks([config], DataConfig(), TOKENIZER, 8).problems == [
        "no task has a training example; raise train_examples of one"
    ]


@pytest.mark.parametrize(("share", "length"), [(0.0, 1), (0.5, 2), (0.95, 4), (1.0, 9)])
def test_quantiles(share, length):
    report = TaskReport("file:x", "x", lengths=Counter({9: 1, 1: 40, 2: 20, 4: 39}))
    assert report.quantile(share) == length


def test_histogram_has_a_bar_for_each_range_of_lengths():
    assert histogram(Counter({7: 5})) == "█"
    assert histogram(Counter({1: 8, 3: 1})) == "█ ▁"
    bars = histogram(Counter({length: 1 for length in range(24)}))
    assert bars == "█" * 12


def test_answers_that_are_not_generated_whole(tmp_path, capsys):
    rows = [{"prompt": f"q{i}", "answer": "z" * length, "task": task} for task, i, length in LENGTHS]
    source = write(tmp_path / "answers.jsonl", rows)
    config = TaskConfig(source, train_examples=0)
    found = validate_tasks([config], DataConfig(), TOKENIZER, 8)
    assert {report.task: report.unreachable for report in found.tasks} == {"short": 0, "some": 2, "never": 3}
    assert found.warnings == [
        "task 'some': 2 of 3 evaluation answers have more tokens than evaluation.max_new_tokens, 8, and can never "
        "score; with their ends they take up to 12: raise it, or take shorter answers",
        "task 'never': all 3 evaluation answers have more tokens than evaluation.max_new_tokens, 8, and can never "
        "score; with their ends they take up to 10: raise it, or take shorter answers",
    ]
    print_validation(found)
    assert "warning: task 'some': 2 of 3" in capsys.readouterr().out


# Eight tokens of answer are generated whole, and score though their end is not generated.
LENGTHS = [
    *(("short", i, 8) for i in range(3)),
    *(("some", 10 + i, length) for i, length in enumerate((8, 9, 11))),
    *(("never", 20 + i, 9) for i in range(3)),
]


def test_ends_that_a_template_writes_are_no_part_of_an_answer(tmp_path):
    tokenizer = with_control_tokens(LLAMA2, eos_token="<|im_end|>")
    source = write(tmp_path / "answers.jsonl", [{"prompt": f"q{i}", "answer": "zzzzzzz"} for i in range(3)])
    config = TaskConfig(source, train_examples=0)
    # A space before the seven letters, which the template writes too.
    assert validate_tasks([config], DataConfig(), tokenizer, 8).tasks[0].unreachable == 0
    assert validate_tasks([config], DataConfig(), tokenizer, 7).tasks[0].unreachable == 3


def test_a_template_that_other_programs_use_otherwise_is_told_of(tmp_path):
    tokenizer = with_control_tokens(NO_GENERATION_PROMPT, eos_token="<|im_end|>")
    config = TaskConfig(write(tmp_path / "sums.jsonl", sums(0, 40)))
    (warning,) = validate_tasks([config], DataConfig(), tokenizer, 8).warnings
    assert "writes no generation prompt" in warning
