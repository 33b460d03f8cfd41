"""A report as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from trex_ds.reporting.result import Report, Table, place, tables, versions


def to_markdown(report: Report) -> str:
    """All tables, and where they were measured."""
    parts = [
        f"# Report on {report.model}",
        place(report),
        *map(_table, tables(report)),
        f"Versions: {versions(report)}",
    ]
    return "\n\n".join(parts) + "\n"


def _table(table: Table) -> str:
    lines = [_row(table.head), _row(["---"] * len(table.head)), *map(_row, table.rows)]
    return "\n\n".join(part for part in (f"## {table.title}", "\n".join(lines), table.note) if part)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
