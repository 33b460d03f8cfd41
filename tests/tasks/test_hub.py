"""`hub:` by a mirror folder, since tests have no hub."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tasks.reading import prompts, read, sums, write
from trex_ds.tasks.base import exact_match
from trex_ds.tasks.config import TaskConfig
from trex_ds.tasks.source import source_of

README = """---
configs:
- config_name: small
  data_files:
  - {split: train, path: small/train.parquet}
  - {split: validation, path: small/validation.parquet}
- config_name: large
  data_files:
  - {split: train, path: large/*}
---
"""


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    folder = tmp_path / "mirror" / "owner" / "sums"
    write(folder / "small" / "train.parquet", sums(0, 40, idx=1))
    write(folder / "small" / "validation.parquet", sums(30, 45, idx=2))
    write(folder / "large" / "part.parquet", [{"question": r["prompt"], "label": 1} for r in sums(0, 60)])
    (folder / "README.md").write_text(README)
    return tmp_path / "mirror"


def test_splits_of_a_configuration(mirror):
    split = read("hub:owner/sums", mirror, options={"config": "small", "evaluation_split": "validation"})
    assert prompts(split.train) == [r["prompt"] for r in sums(0, 30)]
    assert prompts(split.evaluation) == [r["prompt"] for r in sums(30, 45)]
    assert {example.task for example in split.train + split.evaluation} == {"small"}
    assert source_of(TaskConfig("hub:owner/sums")).scorer() is exact_match


def test_other_split_is_divided_when_there_is_none_for_evaluation(mirror):
    split = read("hub:owner/sums", mirror, options={"config": "small", "split": "validation"}, evaluation_fraction=0.3)
    assert sorted(prompts(split.train + split.evaluation)) == sorted(r["prompt"] for r in sums(30, 45))


def test_dataset_without_configurations_names_its_task(mirror):
    write(mirror / "plain" / "train.parquet", sums(0, 30))
    assert {example.task for example in read("hub:plain", mirror).train} == {"plain"}


def test_fields_by_columns(mirror):
    config = {"options": {"config": "large"}, "evaluation_examples": 0}
    with pytest.raises(ValueError, match=r"hub:owner/sums train has the columns question, label; say which"):
        read("hub:owner/sums", mirror, **config)
    with pytest.raises(ValueError, match=r"hub:owner/sums train: columns.answer: unknown column 'lable'; .* label\?"):
        read("hub:owner/sums", mirror, columns={"prompt": "question", "answer": "lable"}, **config)
    with pytest.raises(ValueError, match=r"60 bad rows\nhub:owner/sums train: row 1: answer must be text"):
        read("hub:owner/sums", mirror, columns={"prompt": "question", "answer": "label"}, **config)


def test_what_the_mirror_does_not_have(mirror):
    with pytest.raises(ValueError, match=r"hub:owner/sums, from .*sums, cannot be read: .*'smal' not found.*small"):
        read("hub:owner/sums", mirror, options={"config": "smal"})
    with pytest.raises(ValueError, match=r"cannot be read: Bad split: trai.*'train'"):
        read("hub:owner/sums", mirror, options={"config": "small", "split": "trai"})


def test_neither_hub_nor_mirror(mirror, monkeypatch):
    # As offline, without waiting for a connection.
    def no_connection(*args, **kwargs):
        raise ConnectionError("no connection")

    monkeypatch.setattr("datasets.load_dataset", no_connection)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", no_connection)
    for folder, reason in ((mirror, rf"{mirror} has no folder owner/x"), (None, "data.mirror is not set")):
        message = rf"hub:owner/x cannot be read from the hub: no connection; check the spelling .*\({reason}\)"
        with pytest.raises(ValueError, match=message):
            read("hub:owner/x", folder)
        with pytest.raises(ValueError, match=message):
            source_of(TaskConfig("hub:owner/x"), None if folder is None else str(folder)).fingerprint()


def test_fingerprint_is_the_content_of_the_mirror_or_the_commit_of_the_hub(mirror, monkeypatch):
    config = TaskConfig("hub:owner/sums")
    first = source_of(config, str(mirror)).fingerprint()
    assert source_of(config, str(mirror)).fingerprint() == first
    write(mirror / "owner" / "sums" / "small" / "train.parquet", sums(0, 41, idx=1))
    assert source_of(config, str(mirror)).fingerprint() != first
    monkeypatch.setattr(
        "huggingface_hub.HfApi.dataset_info", lambda self, name: type("Info", (), {"sha": f"c of {name}"})
    )
    assert source_of(config).fingerprint() == "c of owner/sums"


@pytest.mark.parametrize(
    ("source", "settings", "problem"),
    [
        (
            "hub:a:b",
            {},
            "source: 'a:b' is not a hub id of the form owner/name; configuration and splits go into",
        ),
        ("hub:", {}, "source: '' is not a hub id"),
        ("hub:a/b", {"options": {"splt": "x"}}, "options: unknown option 'splt'; did you mean split?"),
        ("hub:a/b", {"options": {"split": 1}}, "options: split must be a name, got 1"),
        ("hub:a/b", {"options": {"evaluation_split": "train"}}, "options: split and evaluation_split are both 'train'"),
        ("hub:a/b", {"evaluation_source": "file:x"}, "evaluation_source: has no effect with source hub:a/b"),
        ("hub:a/b", {"columns": {"promt": "x"}}, "columns: unknown field 'promt'; did you mean prompt?"),
        ("hub:a/b", {"columns": {"prompt": "x"}}, "columns: must name prompt and answer, or messages"),
        ("hub:a/b", {"columns": {"prompt": "x", "messages": "y"}}, "columns: messages take the place of prompt"),
        (
            "hub:a/b",
            {"columns": {"prompt": "x", "answer": "x"}},
            "columns: prompt and answer are all to be in 'x'; name",
        ),
    ],
)
def test_settings_that_a_dataset_does_not_take(source, settings, problem):
    (line,) = TaskConfig(source, **settings).problems()
    assert line.startswith(problem)


def test_sound_settings_have_no_problem():
    options = {"config": "c", "split": "s", "evaluation_split": "e"}
    assert TaskConfig("hub:a/b", options=options, columns={"messages": "talk", "task": "t"}).problems() == []
