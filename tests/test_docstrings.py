"""Docstrings and descriptions of fields can be read alone, in a list or in `--help`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.docstrings import docstrings, problems, without_head

ROOT = Path(__file__).parents[1]
FOLDERS = ("trex_ds", "launch", "benchmarks", "docs", "tools", "tests")


def test_every_first_sentence_can_be_read_alone():
    assert problems([ROOT / folder for folder in FOLDERS]) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Of both passes, in bytes.", True),
        ("Those that are not padding.", True),
        ("  If it is one.", True),
        ('"As" it was.', True),
        ("Bytes of both passes.", False),
        ("Offload the weights.", False),
        ("`of` the fastest.", False),
        ("", False),
    ],
)
def test_a_sentence_without_a_head_is_known_by_its_first_word(text, expected):
    assert without_head(text) is expected


SOURCE = '''"""A."""
x = 1
"""B."""
print()
"""no docstring"""
class C:
    """D."""
    def f(self):
        """E."""
'''


def test_texts_of_modules_classes_functions_and_fields_are_found():
    assert sorted(text for _, text in docstrings(SOURCE)) == ["A.", "B.", "D.", "E."]
