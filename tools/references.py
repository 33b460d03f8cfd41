"""Links and code references of Markdown files that lead nowhere: python tools/references.py [FILE ...].

Checked are relative links with their anchors, and code references such as `trex_ds/files.py:atomic_path` or
`trex_ds/training/trainer.py:TRexTrainer.compute_loss`. Without files: every Markdown file of the repository.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_FENCED = re.compile(r"^(```|~~~).*?^\1", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(.*?) *#*$", re.MULTILINE)
_NAMED = re.compile(r"`([\w./-]+\.py):([A-Za-z_][\w.]*)`")
_FILE = re.compile(r"`((?:trex_ds|tests|launch|benchmarks|docs|tools)/[\w./-]*)`")


def problems(file: Path, root: Path = ROOT) -> list[str]:
    """One line for each reference of `file` that leads nowhere."""
    text = _FENCED.sub("", file.read_text(encoding="utf-8"))
    found = [*_links(file, text), *_names(text, root)]
    return [f"{file}: {what}" for what in found]


def _links(file: Path, text: str) -> Iterator[str]:
    for target in _LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        place = file.parent / path if path else file
        if not place.exists():
            yield f"no file {target}"
        elif anchor and anchor not in anchors(place):
            yield f"no heading {target}"


def _names(text: str, root: Path) -> Iterator[str]:
    for path, name in _NAMED.findall(text):
        if not (root / path).is_file():
            yield f"no file {path}"
        elif name not in definitions(root / path):
            yield f"no {name} in {path}"
    for path in _FILE.findall(text):
        if not (root / path).exists():
            yield f"no file {path}"


@cache
def anchors(file: Path) -> frozenset[str]:
    """The anchors that GitHub gives a file's headings; a repeated heading has a number."""
    text = _FENCED.sub("", file.read_text(encoding="utf-8"))
    times: Counter[str] = Counter()
    found = set()
    for heading in _HEADING.findall(text):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        found.add(f"{slug}-{times[slug]}" if times[slug] else slug)
        times[slug] += 1
    return frozenset(found)


@cache
def definitions(file: Path) -> frozenset[str]:
    """Names that a Python file defines at its top, and `Class.name` for what its classes define."""
    found: set[str] = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        names = set(_defined(node))
        found |= names
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{name}" for inner in node.body for name in _defined(inner)}
    return frozenset(found)


def _defined(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        yield node.name
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    yield from (target.id for target in targets if isinstance(target, ast.Name))


def documents(root: Path = ROOT) -> list[Path]:
    """Every Markdown file of the repository that is written by hand."""
    folders = (root, root / "docs", root / "benchmarks", root / "docker", root / "launch", root / "trex_ds")
    return sorted(file for folder in folders for file in folder.glob("*.md"))


if __name__ == "__main__":
    given = [Path(argument).resolve() for argument in sys.argv[1:]] or documents()
    wrong = [line for file in given for line in problems(file)]
    print("\n".join(wrong))
    sys.exit(bool(wrong))
