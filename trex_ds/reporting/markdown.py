"""A report as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from trex_ds.reporting.result import Report, Table, tables


def to_markdown(report: Report) -> str:
    """All tables, and where they were measured."""
    where = report.environment
    parts = [
        f"# Report on {report.model}",
        f"{where['date']}, {where['ranks']} ranks, {where['cpu']}, {', '.join(where['gpus']) or 'no GPU'}",
        *map(_table, tables(report)),
        "Versions: " + ", ".join(f"{name} {version}" for name, version in where["versions"].items()),
    ]
    return "\n\n".join(parts) + "\n"


def _table(table: Table) -> str:
    lines = [_row(table.head), _row(["---"] * len(table.head)), *map(_row, table.rows)]
    return "\n\n".join(part for part in (f"## {table.title}", "\n".join(lines), table.note) if part)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
