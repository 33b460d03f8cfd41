"""Every cell of the table of model families in docs/models.md is what the code does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.families.cells import CELLS, attention_of
from tests.families.models import FAMILIES

DOCUMENT = Path(__file__).parents[2] / "docs" / "models.md"


def documented() -> dict[str, dict[str, str]]:
    lines = [line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert rows[0] == ["family", *CELLS]
    return {row[0]: dict(zip(CELLS, row[1:], strict=True)) for row in rows[2:]}


def test_the_table_has_every_family():
    assert list(documented()) == list(FAMILIES)


@pytest.mark.battery
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_does_what_the_table_says(family, tmp_path):
    attention = attention_of(family, tmp_path / "config")
    found = {column: cell(family, attention, tmp_path / f"{i}") for i, (column, cell) in enumerate(CELLS.items())}
    assert found == documented()[family]
