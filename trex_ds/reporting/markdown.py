"""A report as Markdown."""

from __future__ import annotations

from trex_ds.reporting.result import Report, place, tables, versions


def to_markdown(report: Report) -> str:
    """All tables, and where they were measured."""
    parts = [
        f"# Report on {report.model}",
        place(report),
        *(table.markdown() for table in tables(report)),
        f"Versions: {versions(report)}",
    ]
    return "\n\n".join(parts) + "\n"
