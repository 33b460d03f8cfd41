from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest

from tests.tasks.reading import prompts, read, sums, write
from trex_ds.tasks.base import exact_match
from trex_ds.tasks.config import TaskConfig
from trex_ds.tasks.source import source_of


def everything(source: str, **settings) -> list:
    return read(source, evaluation_examples=0, **settings).train


def test_one_file_holds_many_tasks(tmp_path):
    choices = ["yes", "no"]
    records = sums(0, 100) + [
        {"prompt": f"Is {i} even?", "answer": choices[i % 2], "task": "parity", "choices": choices} for i in range(100)
    ]
    source = write(tmp_path / "numbers.jsonl", records)
    split = read(source)
    assert source_of(TaskConfig(source)).scorer() is exact_match
    for side in (split.train, split.evaluation):
        assert {(e.task, e.choices) for e in side} == {("numbers", ()), ("parity", ("yes", "no"))}
    example = next(e for e in split.evaluation if e.task == "parity")
    assert example.answer == choices[int(example.prompt.split()[1]) % 2]


def test_parquet_and_json_lines_give_the_same(tmp_path):
    records = sums(0, 600, system="Be brief.", choices=None, other=1.5)
    parquet = everything(write(tmp_path / "sums.parquet", records))
    lines = everything(write(tmp_path / "sums.jsonl", sums(0, 600, system="Be brief.")))
    assert parquet == lines
    assert len(lines) == 600


def test_messages_in_parquet(tmp_path):
    talk = [{"role": "user", "content": "Hi", "name": None}, {"role": "assistant", "content": "Hello", "name": None}]
    (example,) = everything(write(tmp_path / "talk.parquet", [{"messages": talk, "prompt_id": "x"}]))
    assert (example.prompt, example.answer, example.task) == ("Hi", "Hello", "talk")


def test_folder_is_read_in_order_of_names_as_one_task(tmp_path):
    folder = tmp_path / "mine"
    write(folder / "b.jsonl", sums(2, 4))
    write(folder / "a" / "z.parquet", sums(0, 2))
    write(folder / "c.ndjson", sums(4, 6))
    for passed_over in ("README.md", ".git/index", "_SUCCESS"):
        (folder / passed_over).parent.mkdir(exist_ok=True)
        (folder / passed_over).write_text("not data")
    train = everything(f"file:{folder}")
    assert prompts(train) == [r["prompt"] for r in sums(0, 6)]
    assert {example.task for example in train} == {"mine"}


def test_columns_give_the_fields(tmp_path):
    records = [{"question": f"Is {i} even?", "label": i % 2, "options": ["yes", "no"], "task": i} for i in range(9)]
    columns = {"prompt": "question", "answer": "label", "choices": "options"}
    for name in ("even.jsonl", "even.parquet"):
        train = everything(write(tmp_path / name, records), columns=columns)
        assert [(e.answer, e.task) for e in train[:2]] == [("yes", "even"), ("no", "even")]


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({}, " has the columns question, answer; say which hold what: columns: {prompt: COLUMN, answer: COLUMN}"),
        ({"prompt": "qestion", "answer": "answer"}, ": columns.prompt: unknown column 'qestion'; did you mean questi"),
    ],
)
def test_parquet_without_the_columns(tmp_path, columns, problem):
    path = tmp_path / "mine.parquet"
    write(path, [{"question": "q", "answer": "a"}])
    with pytest.raises(ValueError, match=r"mine\.parquet") as caught:
        read(f"file:{path}", columns=columns)
    assert str(caught.value).startswith(f"{path}{problem}")


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"prompt": "qestion", "answer": "answer"}, "columns.prompt: unknown column 'qestion'; did you mean question?"),
        (
            {"prompt": "question", "answer": "xyz"},
            "columns.answer: unknown column 'xyz'; known: question, answer, meta",
        ),
        (
            {"prompt": "question", "answer": "answer", "task": "quest"},
            "columns.task: unknown column 'quest'; did you mean question?",
        ),
        (
            {"prompt": "question", "answer": "solution"},
            "columns.answer: 'solution' lies within the column 'meta', which is not looked into; make it a column",
        ),
        (
            {"prompt": "question", "answer": "meta.solution"},
            "columns.answer: 'meta.solution' lies within the column 'me",
        ),
    ],
)
@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_columns_that_no_row_has_are_named_once(tmp_path, columns, problem, ending):
    path = tmp_path / f"mine.{ending}"
    write(path, [{"question": f"q{i}", "answer": "a", "meta": {"solution": "b"}} for i in range(30)])
    with pytest.raises(ValueError, match="columns") as caught:
        read(f"file:{path}", columns=columns)
    assert str(caught.value).startswith(f"{path}: {problem}")
    assert "\n" not in str(caught.value)


def test_a_column_that_some_rows_have(tmp_path):
    path = tmp_path / "mine.jsonl"
    rows = [{"q": f"q{i}", "a": "yes", **({"kind": "rare"} if i % 2 else {})} for i in range(40)]
    write(path, rows)
    columns = {"prompt": "q", "answer": "a", "task": "kind"}
    assert {example.task for example in everything(f"file:{path}", columns=columns)} == {"mine", "rare"}
    write(path, [*rows, {"q": "q", "answer": "yes"}])
    with pytest.raises(ValueError, match=r"mine\.jsonl:41: answer is missing, which column 'a' should hold"):
        read(f"file:{path}", columns=columns)


ROW = '{"prompt": "p", "answer": "a"}'


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (
            f"[{ROW}]".encode(),
            "is a JSON array, where each row should be a line of its own; convert it, as by jq -c '.[",
        ),
        (f"\ufeff\n[\n{ROW},\n{ROW}\n]\n".encode(), "is a JSON array"),
        (b'{\n  "prompt": "p",\n  "answer": "a"\n}\n', "is JSON whose objects go over several lines"),
        (f"{ROW}\n".encode("utf-16"), "is not in UTF-8, but it seems in UTF-16; convert it, as by iconv -f UTF-16"),
        (f"{ROW}\n".encode("utf-16-le"), "is not in UTF-8, but it seems in UTF-16"),
        (f"{ROW}\n".encode("utf-16-be"), "is not in UTF-8, but it seems in UTF-16"),
        (f"{ROW}\r{ROW}\r".encode(), "ends its lines in CR alone; convert it, as by tr '\\r' '\\n'"),
        (f"{ROW}\n".encode("utf-32"), "is not in UTF-8, but in UTF-32; convert it, as by iconv -f UTF-32"),
        (gzip.compress(ROW.encode(), mtime=0), "is packed with gzip; unpack it"),
    ],
    ids=[
        "array",
        "array with a mark",
        "objects over lines",
        "utf-16",
        "utf-16-le",
        "utf-16-be",
        "cr",
        "utf-32",
        "gzip",
    ],
)
def test_a_file_that_is_no_json_lines_is_told_so_once(tmp_path, content, problem):
    path = tmp_path / "mine.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"mine\.jsonl") as caught:
        read(f"file:{path}")
    assert str(caught.value).startswith(f"{path} {problem}")
    assert "\n" not in str(caught.value)


def test_line_ends_and_marks_of_other_systems(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_bytes(f"\ufeff{ROW}\r\n\r\n{ROW.replace('p', 'q', 1)}".encode())
    path.write_bytes(b"\xef\xbb\xbf" + ROW.encode() + b"\r\n\r\n" + ROW.replace('"p"', '"q"').encode())
    assert prompts(everything(f"file:{path}")) == ["p", "q"]


def test_bad_rows_are_named_by_file_and_place(tmp_path):
    folder = tmp_path / "mine"
    write(folder / "a.parquet", [*sums(0, 300), {"prompt": "p", "answer": None}])
    (folder / "b.jsonl").write_text('{"prompt": "p", "answer": "a"}\n\n{"promt": "p", "answer": "a"}\n')
    with pytest.raises(ValueError, match="bad rows") as caught:
        read(f"file:{folder}")
    assert str(caught.value).splitlines() == [
        f"{folder}: 2 bad rows",
        f"{folder}/a.parquet: row 301: answer is missing",
        f"{folder}/b.jsonl:3: unknown key 'promt'; did you mean prompt?; prompt is missing",
    ]


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_empty_file_is_refused(tmp_path, text):
    path = tmp_path / "mine.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"{path}: no examples; give it rows with prompt and answer, or messages"):
        read(f"file:{path}")


def test_damaged_parquet_is_refused(tmp_path):
    path = tmp_path / "mine.parquet"
    path.write_text("no parquet")
    with pytest.raises(ValueError, match=rf"{path} is not a readable Parquet file"):
        read(f"file:{path}")


def test_fingerprint_follows_content_and_names(tmp_path):
    folder = tmp_path / "mine"
    for name in ("a", "b"):
        write(folder / f"{name}.jsonl", sums(0, 5, task=name))
    test = write(tmp_path / "test.jsonl", sums(5, 8))
    config = TaskConfig(f"file:{folder}", evaluation_source=test)
    seen = [source_of(config).fingerprint()]
    assert seen[0] == source_of(config).fingerprint()
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert source_of(TaskConfig(f"file:{copy}", evaluation_source=test)).fingerprint() == seen[0]
    write(folder / "a.jsonl", sums(0, 5, task="c"))  # as long as before
    seen.append(source_of(config).fingerprint())
    write(tmp_path / "test.jsonl", sums(5, 7))
    seen.append(source_of(config).fingerprint())
    (folder / "a.jsonl").rename(folder / "z.jsonl")
    seen.append(source_of(config).fingerprint())
    assert len(set(seen)) == 4


def test_files_that_are_not_there(tmp_path):
    write(tmp_path / "train.jsonl", sums(0, 3))
    config = TaskConfig(f"file:{tmp_path}/trian.jsonl", evaluation_source=f"file:{tmp_path}/no/x.jsonl")
    assert config.problems() == [
        f"source: no file '{tmp_path}/trian.jsonl' in {Path.cwd()}; did you mean '{tmp_path}/train.jsonl'?",
        f"evaluation_source: no file '{tmp_path}/no/x.jsonl' in {Path.cwd()}; there is no folder '{tmp_path}/no'",
    ]


def test_files_of_another_kind_are_refused_by_name(tmp_path):
    kinds = ".jsonl or .ndjson or .parquet"
    (tmp_path / "empty").mkdir()
    assert TaskConfig(f"file:{tmp_path}/empty").problems() == [
        f"source: the folder '{tmp_path}/empty' holds no {kinds} file"
    ]
    for name in ("a.jsonl", "b.csv", "c.json"):
        (tmp_path / name).write_text(json.dumps({"prompt": "p", "answer": "a"}))
    assert TaskConfig(f"file:{tmp_path}").problems() == [
        f"source: '{tmp_path}/b.csv', '{tmp_path}/c.json': only {kinds} files are read; "
        "convert or rename it, or take it out of the folder"
    ]
