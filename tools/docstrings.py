"""Docstrings whose first sentence cannot be read alone: python tools/docstrings.py FILE_OR_FOLDER ...

A first sentence begins with a noun or a verb. One that goes on from the name above it ("Of both passes, ...",
"Those that ...") says nothing in a list, in `--help` or under a mouse pointer.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

WITHOUT_HEAD = (
    *("Of", "Those", "As", "By", "That", "Which", "Whose", "Who", "Whom", "If", "To", "In", "For", "With", "Without"),
    *("From", "At", "On", "Per", "But", "And", "Or", "So", "Also", "Beside", "Beyond", "Between", "Under", "Than"),
    *("Where", "When", "While", "Because", "Since", "Before", "After", "Until", "Unless", "Though", "Like", "Such"),
    *("Does", "Is", "Are", "Was", "Has", "Can", "May", "Must", "Will", "It", "They", "Its"),
    *("Their", "Theirs", "His", "Ours", "Mine"),
)
"""First words of sentences that lean on a name before them."""
_FIRST_WORD = re.compile(r"[\"'(]*([A-Za-z]+)")


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of every docstring, and of every text below a field."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body
            for before, statement in zip([None, *body], body, strict=False):
                told = before is None or isinstance(before, ast.Assign | ast.AnnAssign)
                text = statement.value if isinstance(statement, ast.Expr) else None
                if told and isinstance(text, ast.Constant) and isinstance(text.value, str):
                    yield statement.lineno, text.value


def without_head(text: str) -> bool:
    """Whether the first sentence needs what stands before it."""
    found = _FIRST_WORD.match(text.strip())
    return found is not None and found[1] in WITHOUT_HEAD


def problems(paths: list[Path]) -> list[str]:
    """One line for each docstring that needs another first sentence."""
    files = sorted(file for path in paths for file in (path.rglob("*.py") if path.is_dir() else [path]))
    return [
        f"{file}:{line}: {text.strip().splitlines()[0]}"
        for file in files
        for line, text in docstrings(file.read_text(encoding="utf-8"))
        if without_head(text)
    ]


if __name__ == "__main__":
    found = problems([Path(argument) for argument in sys.argv[1:]])
    print("\n".join(found))
    sys.exit(bool(found))
