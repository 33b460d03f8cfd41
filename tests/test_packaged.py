"""DeepSpeed configurations by name or by path, and the paths at which a clone has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from trex_ds.packaged import DEEPSPEED_CONFIGS, RECIPES, deepspeed_file, deepspeed_name, names_in, not_found

ROOT = Path(__file__).parents[1]


def test_a_configuration_is_named_or_given_by_its_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named = deepspeed_file("zero3_bf16")
    assert named.is_file()
    assert deepspeed_name(named) == "zero3_bf16"
    for own in ("mine.json", str(tmp_path / "zero3_bf16.json")):
        assert deepspeed_file(own) == Path(own)
        assert deepspeed_name(Path(own)) == own


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("zero3_bf61", "did you mean zero3_bf16?"),
        ("ds_configs/zero3_bf16.json", "did you mean zero3_bf16?"),
        ("mine.json", "by name there are zero0_fp32, zero2_bf16, "),
    ],
)
def test_a_configuration_that_is_not_there(given, hint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = not_found(given, DEEPSPEED_CONFIGS)
    assert said.startswith(f"no file {given!r} (relative to {tmp_path}); {hint}")


def test_a_clone_has_the_files_at_their_old_paths():
    assert (ROOT / "ds_configs").resolve() == DEEPSPEED_CONFIGS.resolve()
    assert (ROOT / "launch" / "recipes").resolve() == RECIPES.resolve()
    assert "quickstart" in names_in(RECIPES)
