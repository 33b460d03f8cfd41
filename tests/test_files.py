"""A reader sees the old content or the new, never half of it."""

from __future__ import annotations

import json
import os
import pwd
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from trex_ds.data.config import DataConfig
from trex_ds.files import atomic_path, cache_folder, ensure_home, make_in_cache, write_json
from trex_ds.modeling.embedded import SMOLLM2, embedded_model_folder
from trex_ds.tasks.harness import index as harness_index


def write_then_fail(target: Path) -> None:
    with atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError("boom")


def test_file_appears_only_when_complete(tmp_path):
    target = tmp_path / "new" / "folder" / "a.txt"
    with atomic_path(target) as temporary:
        temporary.write_text("hello")
        assert temporary.parent == target.parent  # the same file system, so that rename is atomic
        assert not target.exists()
    assert target.read_text() == "hello"
    assert os.listdir(target.parent) == ["a.txt"]


def test_json_is_read_back_whatever_its_texts_are(tmp_path):
    content = {"a": [1, None, "é", "half of a pair: \ud800"], "b": float("inf")}
    write_json(tmp_path / "new" / "a.json", content)
    assert json.loads((tmp_path / "new" / "a.json").read_text(encoding="utf-8")) == content
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json(tmp_path / "new" / "a.json", {"a": object()})
    assert json.loads((tmp_path / "new" / "a.json").read_text(encoding="utf-8")) == content


def test_older_file_is_replaced(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with atomic_path(str(target)) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"


def test_older_folder_is_replaced_whole(tmp_path):
    target = tmp_path / "d"
    target.mkdir()
    (target / "old").write_text("old")
    with atomic_path(target) as temporary:
        temporary.mkdir()
        (temporary / "new").write_text("new")
        assert os.listdir(target) == ["old"]
    assert os.listdir(target) == ["new"]
    assert os.listdir(tmp_path) == ["d"]


def test_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError, match="boom"):
        write_then_fail(target)
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_failure_removes_a_half_written_folder(tmp_path):
    def fill_then_fail() -> None:
        with atomic_path(tmp_path / "d") as temporary:
            temporary.mkdir()
            (temporary / "half").write_text("half")
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        fill_then_fail()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("old_is_folder", [True, False])
def test_a_file_and_a_folder_replace_each_other(tmp_path, old_is_folder):
    target = tmp_path / "x"
    if old_is_folder:
        target.mkdir()
        (target / "old").write_text("old")
    else:
        target.write_text("old")
    with atomic_path(target) as temporary:
        if old_is_folder:
            temporary.write_text("new")
        else:
            temporary.mkdir()
            (temporary / "new").write_text("new")
    assert (target if old_is_folder else target / "new").read_text() == "new"
    assert os.listdir(tmp_path) == ["x"]


def test_old_folder_comes_back_if_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    target = tmp_path / "d"
    target.mkdir()
    (target / "old").write_text("old")
    rename = os.replace

    def replace(source: Path, destination: Path) -> None:
        if str(source).endswith(".tmp"):
            raise OSError("disk gone")
        rename(source, destination)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(OSError, match="disk gone"), atomic_path(target) as temporary:
        temporary.mkdir()
    assert os.listdir(target) == ["old"]
    assert os.listdir(tmp_path) == ["d"]


def test_two_writers_of_one_target_do_not_meet(tmp_path):
    target = tmp_path / "a.txt"
    with atomic_path(target) as first, atomic_path(target) as second:
        first.write_text("first")
        second.write_text("second")
        assert first != second
    assert target.read_text() == "first"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(
    ("mask", "file", "folder"), [(0o022, 0o644, 0o755), (0o002, 0o664, 0o775), (0o077, 0o600, 0o700)]
)
def test_who_may_read_is_up_to_the_umask_whatever_wrote_the_file(tmp_path, mask, file, folder):
    def modes(path: Path) -> dict[str, int]:
        return {str(p.relative_to(tmp_path)): p.stat().st_mode & 0o777 for p in (path, *path.rglob("*"))}

    before = os.umask(mask)
    try:
        with atomic_path(tmp_path / "one") as temporary:
            save_file({"x": torch.zeros(1)}, temporary)
        with atomic_path(tmp_path / "d") as temporary:
            temporary.mkdir(mode=0o700)
            save_file({"x": torch.zeros(1)}, temporary / "weights")
            (temporary / "text").write_text("text")
            (temporary / "run").touch(0o700)
            (temporary / "link").symlink_to("text")
    finally:
        os.umask(before)
    assert modes(tmp_path / "one") == {"one": file}
    found = modes(tmp_path / "d")
    assert found.pop("d/run") == file | 0o700
    assert found == {"d": folder, "d/weights": file, "d/text": file, "d/link": file}


@pytest.fixture
def homeless(monkeypatch):
    """A user without HOME and without an entry in the password database, as in a container with a foreign uid."""

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("HOME", "XDG_CACHE_HOME", "TREX_DS_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


def test_cache_is_where_the_environment_says_else_in_the_home(monkeypatch):
    monkeypatch.setenv("HOME", "/h")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("TREX_DS_CACHE", raising=False)
    assert cache_folder() == Path("/h/.cache/trex_ds")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder() == Path("/x/trex_ds")
    monkeypatch.setenv("TREX_DS_CACHE", "/given")
    assert cache_folder() == Path("/given")


def test_a_user_without_a_home_is_told_of_the_variable_that_decides(homeless, monkeypatch, tmp_path):
    said = "this user has no home folder to keep a cache in; set the environment variable TREX_DS_CACHE to a folder"
    with pytest.raises(ValueError, match=said):
        cache_folder()
    (problem,) = DataConfig().problems()
    assert problem.startswith(f"cache: {said}")
    assert DataConfig(cache="/elsewhere").problems() == []
    ensure_home()
    assert "HOME" not in os.environ

    monkeypatch.setenv("TREX_DS_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    assert DataConfig().problems() == []
    ensure_home()  # for libraries that ask for one as they are imported
    assert Path.home() == tmp_path


def test_a_home_that_is_there_stays(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/h")
    monkeypatch.setenv("TREX_DS_CACHE", str(tmp_path))
    ensure_home()
    assert os.environ["HOME"] == "/h"


def test_a_cache_that_cannot_be_written_to_names_folder_and_variable(tmp_path, monkeypatch):
    (tmp_path / "home").write_text("no folder, which stops root too")
    with pytest.raises(
        ValueError, match=r"/home/x cannot be written to: .*Not a directory.*; set the .* TREX_DS_CACHE"
    ):
        make_in_cache(tmp_path / "home" / "x")
    monkeypatch.setenv("TREX_DS_CACHE", str(tmp_path / "home"))
    with pytest.raises(ValueError, match=r"the cache folder .*/home cannot be written to: .* TREX_DS_CACHE"):
        embedded_model_folder(SMOLLM2)


def test_names_of_lm_eval_are_read_without_a_cache_too(homeless, monkeypatch):
    monkeypatch.setattr(harness_index, "_index", lambda folder: {"a_task": None})
    monkeypatch.setattr(harness_index, "_folder_of", lambda name, index: harness_index._root() / "group")
    assert harness_index.folders.__wrapped__() == {"a_task": "group"}
