from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from tests.ranks import run_ranks
from trex_ds.data.cache import Builder, content_key
from trex_ds.distributed import PeerError


def test_key_changes_with_every_part_and_not_with_the_order_of_keys():
    assert content_key({"a": 1, "b": [2]}) == content_key({"b": [2], "a": 1})
    assert len({content_key(parts) for parts in ({"a": 1}, {"a": 2}, {"b": 1}, ["a", 1], None)}) == 5


def test_a_folder_is_made_once(tmp_path):
    made = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "x").write_text("done")

    for _ in range(2):
        assert (Builder().build(tmp_path / "sub" / "f", make) / "x").read_text() == "done"
    assert len(made) == 1


def test_a_failure_leaves_nothing_behind_and_can_be_tried_again(tmp_path):
    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise ValueError("no such thing")

    with pytest.raises(ValueError, match="no such thing"):
        Builder().build(tmp_path / "f", fail)
    assert not (tmp_path / "f").exists()
    assert not list(tmp_path.glob("**/half"))
    Builder().build(tmp_path / "f", lambda folder: (folder / "x").touch())
    assert (tmp_path / "f" / "x").exists()


def test_two_jobs_at_once_make_it_once(tmp_path):
    made = []

    def make(folder: Path) -> None:
        made.append(folder)
        time.sleep(0.3)
        (folder / "x").write_text("whole")

    threads = [threading.Thread(target=lambda: Builder().build(tmp_path / "f", make)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert (tmp_path / "f" / "x").read_text() == "whole"


def build_on_every_rank(folder: Path) -> tuple[str, str]:
    from trex_ds.launching.process_group import start_distributed

    start_distributed(1)

    def make(temporary: Path) -> None:
        time.sleep(0.5)
        (temporary / "rank").write_text(os.environ["RANK"])

    def fail(temporary: Path) -> None:
        raise ValueError("bad line 7")

    built = (Builder().build(folder / "f", make) / "rank").read_text()
    try:
        Builder().build(folder / "g", fail)
    except (ValueError, PeerError) as error:
        return built, f"{type(error).__name__}: {error}"
    return built, ""


def test_the_first_rank_builds_and_the_others_find_it_or_its_error(tmp_path):
    results = run_ranks(2, tmp_path, build_on_every_rank, tmp_path)
    assert [built for built, _ in results] == ["0", "0"]
    assert results[0][1] == "ValueError: bad line 7"
    assert results[1][1] == "PeerError: the node's first process failed: ValueError: bad line 7"
