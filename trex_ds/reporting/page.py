"""A report as one HTML page that needs nothing beside it: no scripts, no fonts, plots inlined; for phones too."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

from trex_ds.reporting.plots import plots
from trex_ds.reporting.result import Report, place, tables, versions

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --good: #1a7f37; --bad: #cf222e; --open: #9a6700; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
.numbers td + td, .numbers th + th { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.note, footer { font-size: .85rem; opacity: .8; }
.verdict { border-left: .35rem solid var(--open); padding: .1rem 0 .1rem .8rem; margin: 1rem 0; }
.verdict p { margin: .1rem 0; }
.holds { border-color: var(--good); } .holds b { color: var(--good); }
.fails { border-color: var(--bad); } .fails b { color: var(--bad); }
figure { margin: 1.5rem 0; } img { max-width: 100%; height: auto; background: #fff; }
"""
_KINDS = {"holds": "holds", "does not hold": "fails", "cannot be told": "open"}


def to_html(report: Report) -> str:
    """The page, as well-formed XML."""
    verdicts, *others = tables(report)
    title = escape(f"Report on {report.model}")
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en" xmlns="http://www.w3.org/1999/xhtml"><head><meta charset="utf-8" />',
            '<meta name="viewport" content="width=device-width, initial-scale=1" />',
            f"<title>{title}</title><style>{_STYLE}</style></head><body>",
            f"<h1>{title}</h1>",
            f"<p>{escape(place(report))}</p>",
            "<h2>Verdicts</h2>",
            *(_verdict(row, _KINDS[v.outcome]) for row, v in zip(verdicts.rows, report.verdicts, strict=True)),
            *(_figure(name, svg) for name, svg in plots(report).items()),
            *(table.html() for table in others),
            f"<footer><p>{escape(versions(report))}</p></footer>",
            "</body></html>",
        ]
    )


def _verdict(row: Sequence[str], kind: str) -> str:
    claim, against, value, outcome, how = map(escape, row)
    return (
        f'<div class="verdict {kind}"><p>{claim}: <b>{outcome}</b></p>'
        f"<p>{value}{' against ' if value else 'against '}{against}</p>"
        f'<p class="note">{how}</p></div>'
    )


def _figure(name: str, svg: bytes) -> str:
    data = base64.b64encode(svg).decode()
    return f'<figure><img alt="{escape(name)}" src="data:image/svg+xml;base64,{data}" /></figure>'
