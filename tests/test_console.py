"""What is printed where there is no terminal: nothing cut, and one line a stage."""

from __future__ import annotations

import sys

import pytest
from rich.table import Table

from trex_ds.console import console
from trex_ds.progress import Progress


def test_no_name_of_a_table_is_cut_folded_or_taken_for_markup(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    names = ["a_task_of_a_name_" + "x" * 300, "[bold]task[/bold]", "two words of it " * 10]
    table = Table("task", *(f"column {i}" for i in range(9)))
    for name in names:
        table.add_row(name, *["1.0 ± 0.1"] * 9)
    console().print(table)
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) == len(names) + 4
    for name in names:
        assert name.strip() in printed
    console().print("a line of words " * 20)
    assert capsys.readouterr().out == "a line of words " * 20 + "\n"


def test_a_stage_is_one_line_in_a_file(capsys):
    assert list(Progress(range(1500), desc="intuition pass", unit=" prompts")) == list(range(1500))
    with Progress(total=3, desc="fits", unit=" of it", initial=1) as bar:
        bar.update(2)
    assert list(Progress("ab", desc="hidden", shown=False)) == ["a", "b"]
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("intuition pass: 1,500 prompts in ")
    assert second.startswith("fits: 3 of it in ")


def test_a_stage_that_fails_says_how_far_it_came(capsys):
    def two_items():
        yield from range(2)
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        list(Progress(two_items(), desc="reading", unit=" rows"))
    assert capsys.readouterr().err.startswith("reading: 2 rows in ")


def test_a_terminal_gets_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    list(Progress(range(3), desc="reading", unit=" rows"))
    shown = capsys.readouterr().err
    assert "100%" in shown
    assert "3/3" in shown
    assert " rows in " not in shown
