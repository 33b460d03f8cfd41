"""Tables of text for a screen, Markdown and HTML."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from html import escape

from rich.table import Table as RichTable


@dataclass(frozen=True)
class Table:
    """Rows of text under a head. A console prints it as it is."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    numbers: bool = True
    """Whether all columns but the first hold numbers, which a screen aligns on the right."""
    lines_after: Collection[int] = ()
    """Numbers of rows, from 0, below which a screen has a line."""

    def __rich__(self) -> RichTable:
        table = RichTable(
            title=self.title or None, title_justify="left", caption=self.note or None, caption_justify="left"
        )
        for position, name in enumerate(self.head):
            table.add_column(name, justify="right" if position and self.numbers else "left")
        for number, row in enumerate(self.rows):
            table.add_row(*row, end_section=number in self.lines_after)
        return table

    def markdown(self) -> str:
        """Title, rows and note, without a line break at the end."""
        lines = [_markdown_row(self.head), _markdown_row(["---"] * len(self.head)), *map(_markdown_row, self.rows)]
        return "\n\n".join(part for part in (f"## {self.title}", "\n".join(lines), self.note) if part)

    def html(self) -> str:
        """Title, rows and note as well-formed XML."""
        head = "".join(f"<th>{escape(cell)}</th>" for cell in self.head)
        rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in self.rows)
        note = f'<p class="note">{escape(self.note)}</p>' if self.note else ""
        return (
            f'<h2>{escape(self.title)}</h2><div class="wide"><table class="numbers"><thead><tr>{head}</tr></thead>'
            f"<tbody>{rows}</tbody></table></div>{note}"
        )


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
