"""Preparation in small: a recipe's data with an embedder that is a fake and counts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.intuition.fakes import FakeEmbedder
from trex_ds.config import read_recipe
from trex_ds.intuition import clustering
from trex_ds.preparation import intuition
from trex_ds.training.prepared import Prepared, prepare
from trex_ds.training.recipe import Recipe

CPU = torch.device("cpu")


def read(file: Path, *arguments: str) -> Recipe:
    return read_recipe(Recipe, ["--config", str(file), *arguments], "")


def prepare_file(file: Path, *arguments: str) -> Prepared:
    return prepare(read(file, *arguments), CPU)


def use_embedder(patch: pytest.MonkeyPatch, make: Callable[[], Any] = FakeEmbedder) -> list[Any]:
    """Preparations open what `make` gives; returns the list of those opened, filled as it goes."""
    opened: list[Any] = []

    def open_embedder(name: str, revision: str | None, prompt: str, device: str) -> Any:
        opened.append(make())
        return opened[-1]

    patch.setattr(intuition, "SentenceTransformerEmbedder", open_embedder)
    return opened


def use_small_pieces(patch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """A pass of several pieces; returns the recipe's part of it."""
    patch.setattr(clustering, "PIECE", 8)
    return ("--intuition.batch_size", "4", "--intuition.max_embeddings", "12")


def made(prepared: Prepared) -> dict[str, bool]:
    return {stage.name: stage.made for stage in prepared.stages}


def training_items(prepared: Prepared) -> list[dict[str, Any]]:
    """The items of the training set, or of its rows, in their order."""
    found: list[dict[str, Any]] = []
    for i in range(len(prepared.training_set)):
        item = prepared.training_set[i]
        found += item if isinstance(item, list) else [item]
    return found


def training_texts(prepared: Prepared) -> list[str]:
    return [prepared.tokenizer.decode(item["input_ids"]) for item in training_items(prepared)]


def content(prepared: Prepared) -> dict[str, Any]:
    """All that a job is given, to be compared."""
    rows = [(tuple(item["input_ids"]), tuple(item["labels"])) for item in training_items(prepared)]
    scores = torch.stack([item["intuition"] for item in training_items(prepared)])
    return {
        "rows": hashlib.sha256(repr(rows).encode()).hexdigest(),
        "row sizes": [len(prepared.training_set[i]) for i in range(len(prepared.training_set))],
        "scores": hashlib.sha256(scores.numpy().tobytes()).hexdigest(),
        "questions": _shown(prepared.questions),
        "held out": _shown(prepared.held_out),
        "mixture": prepared.mixture,
        "centroids": prepared.centroids.fingerprint if prepared.centroids else None,
    }


def _shown(questions: Sequence[Any]) -> list[tuple[str, str, list[int], list[float]]]:
    return [(q.example.task, q.example.text, list(q.input_ids), q.intuition.tolist()) for q in questions]
