from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest

from tests.data.tokenizers import CHATML, encode_example, make_tokenizer
from trex_ds.data.config import DataConfig
from trex_ds.data.encoding import encode_examples, encode_prompt
from trex_ds.data.store import TrainRows, TrainTexts, lengths, open_store, tokenizer_fingerprint, write_examples
from trex_ds.seeding import text_digest
from trex_ds.tasks.base import Example

EXAMPLES = [
    ("evaluation", Example("what is 1 + 1", "2", "sum", record={"seed": 1})),
    ("train", Example("what is 2 + 2", "4", "sum")),
    ("train", Example("spell sun", "nus", "spell", choices=("nus", "sun"))),
    ("train", Example("and moon", "noom", "spell", history=(("user", "spell sun"), ("assistant", "nus")))),
    ("evaluation", Example("spell tree", "eert", "spell")),
]


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer(CHATML)


def write(folder, tokenizer, examples=EXAMPLES, max_length=100, learn="last_answer"):
    folder.mkdir()
    write_examples(folder, iter(examples), tokenizer, DataConfig(max_length=max_length, learn=learn), "test")
    return folder


def test_what_is_written_is_read_back(tmp_path, tokenizer):
    store = open_store([write(tmp_path / "a", tokenizer)], ["file:a"])
    assert store.counts == {
        "sum": {"train": 1, "evaluation": 1, "too_long": 0},
        "spell": {"train": 2, "evaluation": 1, "too_long": 0},
    }
    for split in ("train", "evaluation"):
        written = [example for own, example in EXAMPLES if own == split]
        for i, example in enumerate(written):
            read, prompt_ids, answer_ids = store.example(split, i)
            assert read == example
            assert read.record == example.record
            assert prompt_ids == encode_prompt(tokenizer, example, None)
            assert [*prompt_ids, *answer_ids] == encode_example(tokenizer, example, None).ids
    train = [example for own, example in EXAMPLES if own == "train"]
    assert [TrainRows(store)[i] for i in range(3)] == [encode_example(tokenizer, example, None) for example in train]
    assert [TrainTexts(store)[i] for i in range(3)] == [example.text for example in train]
    assert store.digests.tolist() == [text_digest(example.text) for example in train]
    assert store.positions("sum").tolist() == [0]
    assert store.positions("spell").tolist() == [1, 2]
    assert lengths(store.train).tolist() == [len(row.ids) for row in TrainRows(store)]


def test_folders_follow_each_other_and_know_their_entry(tmp_path, tokenizer):
    other = [("train", Example("name a river", "rhine", "rivers"))]
    folders = [write(tmp_path / "a", tokenizer), write(tmp_path / "b", tokenizer, other)]
    store = open_store(folders, ["file:a", "file:b"])
    assert store.entry == {"sum": 0, "spell": 0, "rivers": 1}
    assert store.positions("rivers").tolist() == [3]
    assert store.example("train", 3)[0] == other[0][1]
    assert (len(store.train), len(store.evaluation)) == (4, 2)


def test_two_tasks_of_one_name_are_refused(tmp_path, tokenizer):
    folders = [write(tmp_path / "a", tokenizer), write(tmp_path / "b", tokenizer)]
    with pytest.raises(ValueError, match="two tasks are named 'sum': one of file:a, one of file:b"):
        open_store(folders, ["file:a", "file:b"])


def test_task_named_like_the_mean_is_refused(tmp_path, tokenizer):
    folder = write(tmp_path / "a", tokenizer, [("train", Example("a", "b", "mean"))])
    with pytest.raises(ValueError, match="a task of file:a is named 'mean'"):
        open_store([folder], ["file:a"])


def test_training_examples_that_are_too_long_are_left_out_and_counted(tmp_path, tokenizer):
    long = ("train", Example("spell " + "tree " * 200, "eert", "spell"))
    store = open_store([write(tmp_path / "a", tokenizer, [*EXAMPLES, long])], ["file:a"])
    assert store.counts["spell"] == {"train": 2, "evaluation": 1, "too_long": 1}
    assert len(store.train) == 3
    with pytest.raises(ValueError, match=r"task .spell.: all 1 training examples are longer than data.max_length"):
        write(tmp_path / "b", tokenizer, [EXAMPLES[0], long])


def test_batches_are_written_as_they_come(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr("trex_ds.data.encoding._BATCH", 3)
    read = 0

    def stream() -> Iterator:
        nonlocal read
        for i in range(10):
            read += 1
            yield "train", Example(f"what is {i}", str(i), "sum")

    store = open_store([write(tmp_path / "a", tokenizer, stream())], ["file:a"])
    assert read == 10
    assert [store.example("train", i)[0].answer for i in range(10)] == [str(i) for i in range(10)]
    assert np.array_equal(store.positions("sum"), np.arange(10))


def test_tokenizer_fingerprint_changes_with_template_and_vocabulary(tokenizer):
    same, other = make_tokenizer(CHATML), make_tokenizer(CHATML)
    assert tokenizer_fingerprint(same) == tokenizer_fingerprint(tokenizer)
    other.chat_template += " "
    assert tokenizer_fingerprint(other) != tokenizer_fingerprint(tokenizer)
    same.add_tokens(["new"])
    assert tokenizer_fingerprint(same) != tokenizer_fingerprint(tokenizer)


def test_counts_are_plain_data(tmp_path, tokenizer):
    folder = write(tmp_path / "a", tokenizer)
    assert json.loads((folder / "counts.json").read_text())["sum"]["train"] == 1


def test_answers_that_are_learned_are_read_back(tmp_path, tokenizer):
    turns = [("user", "spell sun"), ("assistant", "nus"), ("user", "and moon"), ("assistant", "noom"), ("user", "tree")]
    talk = Example("star", "rats", "spell", history=tuple(turns[:4]))
    messages = [{"role": role, "content": text} for role, text in (*turns[:2], ("user", "sky"), ("assistant", "yks"))]
    weighted = [{**message, "weight": i % 4 == 1} if i % 2 else message for i, message in enumerate(messages)]
    by_weight = Example(
        "sky", "yks", "spell", history=tuple(turns[:2]), conversation={"messages": weighted, "tools": None}
    )
    examples = [("train", talk), ("train", by_weight), *EXAMPLES]
    for learn in ("last_answer", "all_answers"):
        store = open_store([write(tmp_path / learn, tokenizer, examples, 300, learn)], ["file:a"])
        rows, expected = TrainRows(store), encode_examples(tokenizer, [talk, by_weight], None, learn=learn)
        assert [rows[0], rows[1]] == expected
        assert store.example("train", 1)[0] == by_weight
        # The prompt goes as far as the last answer, whatever is learned before it.
        assert store.example("train", 0)[1] == encode_prompt(tokenizer, talk, None)
    assert expected[0].labels != encode_example(tokenizer, talk, None).labels
