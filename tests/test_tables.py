from __future__ import annotations

import io
from xml.etree import ElementTree

from rich.console import Console

from trex_ds.tables import Table

TABLE = Table("Sums", ["task", "n"], [["a|b <c>", "1"], ["mean [x]", "1,000"]], note="all of them", lines_after={0})


def printed(table: Table) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=200, markup=False).print(table)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_a_screen_has_numbers_on_the_right_and_lines_between_rows():
    title, _, head, _, first, line, last, _, note = printed(TABLE)
    assert (title, note) == ("Sums", "all of them")
    assert head == "┃ task     ┃     n ┃"
    assert (first, last) == ("│ a|b <c>  │     1 │", "│ mean [x] │ 1,000 │")
    assert line == "├──────────┼───────┤"


def test_text_stands_on_the_left():
    assert printed(Table("", ["task", "n"], [["a", "1"], ["b", "1,000"]], numbers=False))[3] == "│ a    │ 1     │"


def test_markdown_keeps_bars_within_cells():
    assert TABLE.markdown() == (
        "## Sums\n\n| task | n |\n| --- | --- |\n| a\\|b <c> | 1 |\n| mean [x] | 1,000 |\n\nall of them"
    )


def test_html_is_well_formed():
    page = ElementTree.fromstring(f"<div>{TABLE.html()}</div>")
    assert [cell.text for cell in page.iter("td")] == ["a|b <c>", "1", "mean [x]", "1,000"]
    assert [cell.text for cell in page.iter("th")] == ["task", "n"]
