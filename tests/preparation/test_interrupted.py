"""A cache that several processes fill, or that one was interrupted at filling."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.intuition.fakes import FakeEmbedder
from tests.training.jobs import write_recipe
from tests.training.preparations import content, made, prepare_file, use_embedder, use_small_pieces
from trex_ds.intuition.scores import IntuitionResult
from trex_ds.tasks.source import Source
from trex_ds.tasks.sources.file import FileSource
from trex_ds.tasks.sources.gym import GymSource

_CONTEXT = multiprocessing.get_context("forkserver")


class SlowEmbedder(FakeEmbedder):
    """Takes its time for each batch."""

    seconds = 0.0

    def embed(self, texts: Any) -> Any:
        time.sleep(self.seconds)
        return super().embed(texts)


def two_tasks(folder: Path) -> list[str]:
    gym = "{source: gym:spell_backward, train_examples: 12, evaluation_examples: 3}"
    return ["--tasks", f"[{{source: 'file:{folder}/tasks.jsonl', evaluation_fraction: 0.3}}, {gym}]"]


def finished(cache: Path) -> list[Path]:
    """What a preparation would take for finished."""
    tasks = [folder for folder in cache.glob("tasks/*") if folder.is_dir() and not folder.name.startswith(".")]
    return tasks + [folder for folder in cache.glob("intuition/*") if folder.is_dir() and IntuitionResult.open(folder)]


def failing_reader(after: int, fail: Any) -> Any:
    """Gives what a gym task gives, but no more than some examples."""
    real = GymSource.examples

    def examples(source: GymSource) -> Any:
        for number, item in enumerate(real(source)):
            if number == after:
                fail()
            yield item

    return examples


def raise_error() -> None:
    raise OSError("no space left")


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("fail", [raise_error, interrupt])
def test_interrupted_while_examples_are_written(tmp_path, monkeypatch, fail):
    use_embedder(monkeypatch)
    file = write_recipe(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(GymSource, "examples", failing_reader(5, fail))
        with pytest.raises((OSError, KeyboardInterrupt)):
            prepare_file(file, *two_tasks(tmp_path))
    check_next_preparation(tmp_path, file, monkeypatch)


def prepare_and_die(file: Path, arguments: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        use_embedder(patch)
        patch.setattr(GymSource, "examples", failing_reader(5, lambda: os._exit(9)))
        prepare_file(file, *arguments)


def test_killed_while_examples_are_written(tmp_path, monkeypatch):
    use_embedder(monkeypatch)
    file = write_recipe(tmp_path)
    process = _CONTEXT.Process(target=prepare_and_die, args=(file, two_tasks(tmp_path)))
    process.start()
    process.join(600)
    assert process.exitcode == 9
    check_next_preparation(tmp_path, file, monkeypatch)


def check_next_preparation(folder: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first task is there and is not read again, of the second there is nothing."""
    (first,) = finished(folder / "cache")
    assert '"sum"' in (first / "counts.json").read_text()
    read: list[str] = []

    def noting(kind: type[Source]) -> None:
        real = kind.examples

        def examples(source: Source) -> Any:
            read.append(source.config.source)
            return real(source)

        monkeypatch.setattr(kind, "examples", examples)

    noting(GymSource)
    noting(FileSource)
    prepared = prepare_file(file, *two_tasks(folder))
    assert read == ["gym:spell_backward"]
    assert made(prepared) == {"examples": True, "intuition": True}
    whole = prepare_file(file, *two_tasks(folder), "--data.cache", str(folder / "other"))
    assert content(prepared) == content(whole)


# The sample is of two pieces, of two batches and of one; the pieces after it are of two.
@pytest.mark.parametrize(("batches", "unfinished"), [(1, 1), (2, 0), (3, 0), (4, 1), (6, 1)])
def test_interrupted_while_prompts_are_embedded(tmp_path, monkeypatch, batches, unfinished):
    file = write_recipe(tmp_path)
    pieces = use_small_pieces(monkeypatch)
    whole_embedders = use_embedder(monkeypatch)
    whole = prepare_file(file, *pieces, "--data.cache", str(tmp_path / "other"))
    everything = whole_embedders[0].embedded
    assert len(everything) == len(set(everything)) > 30

    failing = use_embedder(monkeypatch, lambda: FakeEmbedder(fail_after=batches))
    with pytest.raises(RuntimeError, match="out of imaginary memory"):
        prepare_file(file, *pieces)
    assert len(finished(tmp_path / "cache")) == 1  # the examples

    again = use_embedder(monkeypatch)
    prepared = prepare_file(file, *pieces)
    assert made(prepared) == {"examples": False, "intuition": True}
    assert content(prepared) == content(whole)
    before, after = failing[0].embedded, again[0].embedded
    assert len(before) == 4 * batches
    assert len(set(before) & set(after)) == 4 * unfinished
    assert set(before) | set(after) == set(everything)
    assert max(Counter(after).values()) == 1


def prepare_slowly(file: Path, arguments: list[str], seconds: float, start: Any, result: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        opened = use_embedder(patch, SlowEmbedder)
        patch.setattr(SlowEmbedder, "seconds", seconds)
        use_small_pieces(patch)
        start.wait(120)
        prepared = prepare_file(file, *arguments)
        embedded = [text for embedder in opened for text in embedder.embedded]
        result.write_bytes(pickle.dumps((content(prepared), embedded)))


def test_two_processes_at_once_have_the_same_whole_data(tmp_path, monkeypatch):
    file = write_recipe(tmp_path)
    arguments = [*use_small_pieces(monkeypatch), *two_tasks(tmp_path)]
    start = _CONTEXT.Barrier(2)
    processes = [
        # The slower is in the middle of its pass when the other ends, if nothing makes it wait.
        _CONTEXT.Process(target=prepare_slowly, args=(file, arguments, seconds, start, tmp_path / f"{seconds}"))
        for seconds in (0.05, 0.15)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(600)
    assert [process.exitcode for process in processes] == [0, 0]
    (first, embedded), (second, embedded_too) = (pickle.loads((tmp_path / n).read_bytes()) for n in ("0.05", "0.15"))
    assert first == second
    assert max(Counter(embedded + embedded_too).values()) == 1  # nothing is done twice
    use_embedder(monkeypatch)
    assert content(prepare_file(file, *arguments, "--data.cache", str(tmp_path / "alone"))) == first
    assert len(finished(tmp_path / "cache")) == 3
