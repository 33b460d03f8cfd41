"""Rendered and tokenized examples on disk: written once as a stream, read memory-mapped.

Neither writing nor reading needs memory that grows with the number of training examples, but for a few
numbers each (a 64-bit digest, a task number, a position).
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trex_ds.data.config import DataConfig
from trex_ds.data.encoding import Encoded, encoded_batches
from trex_ds.progress import Progress
from trex_ds.seeding import text_digest
from trex_ds.tasks.base import Example, Split, whole_prompt

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

FORMAT = 2
"""Part of every key: raised when the columns or the rendering change."""

_SPLITS: tuple[Split, ...] = ("train", "evaluation")
_COUNTS = "counts.json"
_AS_JSON = ("history", "conversation", "record")
"""Fields of an example that a column keeps as JSON."""


def write_examples(
    folder: Path,
    examples: Iterable[tuple[Split, Example]],
    tokenizer: PreTrainedTokenizerBase,
    data: DataConfig,
    description: str,
) -> None:
    """Tokenize a stream of examples into `folder`: train.arrow, evaluation.arrow and counts.json.

    Training examples of more than `data.max_length` tokens are left out and counted, never cut.

    Raises:
        ValueError: all training examples of a task are too long.
    """
    from datasets.arrow_writer import ArrowWriter

    writers = {split: ArrowWriter(features=_features(), path=str(folder / f"{split}.arrow")) for split in _SPLITS}
    counts: dict[str, dict[str, int]] = {}
    stream = Progress(examples, desc=description, unit=" examples")
    for batch in encoded_batches(stream, tokenizer, data):
        for split in _SPLITS:
            kept = []
            for own_split, example, row in batch:
                if own_split != split:
                    continue
                count = counts.setdefault(example.task, dict.fromkeys(("train", "evaluation", "too_long"), 0))
                if split == "train" and len(row.ids) > data.max_length:
                    count["too_long"] += 1
                    continue
                count[split] += 1
                kept.append(_columns(example, row))
            if kept:
                writers[split].write_batch({name: [row[name] for row in kept] for name in kept[0]})
    for writer in writers.values():
        writer.finalize()
    for name, count in counts.items():
        if count["too_long"] and not count["train"]:
            raise ValueError(
                f"task {name!r}: all {count['too_long']} training examples are longer than data.max_length "
                f"{data.max_length}; raise max_length or remove the task"
            )
    (folder / _COUNTS).write_text(json.dumps(counts), encoding="utf-8")


@dataclass(frozen=True)
class Store:
    """The examples of all entries of a recipe, in their order; made by `open_store`."""

    train: Dataset
    evaluation: Dataset
    counts: Mapping[str, Mapping[str, int]]
    """Counts per task, in the recipe's order: train, evaluation and too_long examples."""
    entry: Mapping[str, int]
    """The recipe's entry that each task comes from."""

    @cached_property
    def digests(self) -> np.ndarray:
        """64 bits of each training example's text, int64."""
        return _numbers(self.train, "digest")

    def row_digests(self) -> np.ndarray:
        """64 bits of each training example's tokens and of which of them are learned, int64."""
        found = []
        for batch in self.train.data.to_batches():
            starts = batch.column("answer_start").to_numpy()
            lists = [batch.column(name) for name in ("input_ids", "earlier")]
            values = [column.values.to_numpy() for column in lists]
            offsets = [column.offsets.to_numpy() for column in lists]
            for row, start in enumerate(starts):
                parts = [v[o[row] : o[row + 1]].tobytes() for v, o in zip(values, offsets, strict=True)]
                content = b"%d %d %b%b" % (start, len(parts[0]), *parts)
                found.append(int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little", signed=True))
        return np.array(found, np.int64)

    def positions(self, task: str) -> np.ndarray:
        """Positions of the task's training examples, int64, ascending."""
        return np.flatnonzero(self.task_numbers == list(self.counts).index(task))

    @cached_property
    def task_numbers(self) -> np.ndarray:
        """The place of each training example's task in `counts`."""
        import pyarrow.compute as pc

        numbers = pc.index_in(self.train.data.column("task"), value_set=_text_array(list(self.counts)))
        return numbers.to_numpy()

    def evaluation_answer_lengths(self) -> np.ndarray:
        """Tokens of each evaluation example's answer, with what ends it, int64."""
        return lengths(self.evaluation) - _numbers(self.evaluation, "answer_start")

    def example(self, split: Split, position: int) -> tuple[Example, list[int], list[int]]:
        """An example, the token ids of its prompt, and those of its answer with what ends it."""
        row = (self.train if split == "train" else self.evaluation)[int(position)]
        return _example(row), row["input_ids"][: row["answer_start"]], row["input_ids"][row["answer_start"] :]


class TrainRows(Sequence[Encoded]):
    """The token rows of a store's training examples, read from disk one at a time."""

    def __init__(self, store: Store):
        self._columns = store.train.select_columns(["input_ids", "answer_start", "earlier"])

    def __len__(self) -> int:
        return len(self._columns)

    def __getitem__(self, position: int) -> Encoded:  # type: ignore[override] # nobody slices it
        row = self._columns[int(position)]
        return Encoded(row["input_ids"], row["answer_start"], tuple(row["earlier"]))


class TrainTexts(Sequence[str]):
    """The texts of a store's training examples, which are embedded, read from disk one at a time."""

    def __init__(self, store: Store):
        self._columns = store.train.select_columns(["prompt", "history"])

    def __len__(self) -> int:
        return len(self._columns)

    def __getitem__(self, position: int) -> str:  # type: ignore[override] # nobody slices it
        row = self._columns[int(position)]
        return whole_prompt(json.loads(row["history"]), row["prompt"])


def open_store(folders: Sequence[Path], sources: Sequence[str]) -> Store:
    """The examples that `write_examples` wrote to `folders`, memory-mapped.

    Raises:
        ValueError: two of the folders have a task of the same name, or one is named like the mean over tasks;
            quotes their `sources`.
    """
    from datasets import Dataset, concatenate_datasets

    counts: dict[str, dict[str, int]] = {}
    entry: dict[str, int] = {}
    for number, folder in enumerate(folders):
        for name, count in json.loads((folder / _COUNTS).read_text(encoding="utf-8")).items():
            if name == "mean":
                raise ValueError(
                    f"a task of {sources[number]} is named 'mean', as the mean over tasks is; give it another name"
                )
            if name in counts:
                raise ValueError(
                    f"two tasks are named {name!r}: one of {sources[entry[name]]}, one of {sources[number]}; "
                    "remove one, or give the examples of a file another task name"
                )
            counts[name], entry[name] = count, number
    train, evaluation = (
        concatenate_datasets([Dataset.from_file(str(folder / f"{split}.arrow")) for folder in folders])
        for split in _SPLITS
    )
    return Store(train, evaluation, counts, entry)


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Changes with whatever changes the ids of a text or of a conversation."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    vocabulary = backend.to_str() if backend else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    parts = [vocabulary, tokenizer.chat_template, tokenizer.eos_token_id, tokenizer.special_tokens_map]
    return f"{text_digest(json.dumps(parts, sort_keys=True, default=str)):x}"


def _columns(example: Example, row: Encoded) -> dict[str, Any]:
    values = {field.name: getattr(example, field.name) for field in fields(Example)}
    return {
        **values,
        **{name: json.dumps(values[name]) for name in _AS_JSON},
        "choices": list(example.choices),
        "input_ids": row.ids,
        "answer_start": row.answer_start,
        "earlier": list(row.earlier),
        "digest": text_digest(example.text),
    }


def _example(row: Mapping[str, Any]) -> Example:
    values = {field.name: row[field.name] for field in fields(Example)}
    values |= {name: json.loads(row[name]) for name in _AS_JSON}
    values |= {"choices": tuple(row["choices"]), "history": tuple(map(tuple, values["history"]))}
    return Example(**values)


def _features() -> Any:
    from datasets import Features, List, Value

    text = Value("string")
    return Features(
        {
            **dict.fromkeys((field.name for field in fields(Example)), text),
            "choices": List(text),
            "plain": Value("bool"),
            "input_ids": List(Value("int32")),
            "answer_start": Value("int32"),
            "earlier": List(Value("int32")),
            "digest": Value("int64"),
        }
    )


def _numbers(dataset: Dataset, column: str) -> np.ndarray:
    return dataset.data.column(column).to_numpy()


def _text_array(texts: list[str]) -> Any:
    import pyarrow as pa

    return pa.array(texts, pa.string())


def lengths(dataset: Dataset) -> np.ndarray:
    """Tokens of each row, int64, without reading the rows."""
    import pyarrow.compute as pc

    return pc.list_value_length(dataset.data.column("input_ids")).to_numpy().astype(np.int64)
