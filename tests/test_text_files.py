"""Text files are UTF-8 whatever the locale, and what a command prints never ends it."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(file for folder in ("trex_ds", "launch", "benchmarks") for file in (ROOT / folder).rglob("*.py"))
# A locale without UTF-8, and none of Python's ways around it.
ASCII = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def calls_without_encoding(source: str) -> Iterator[int]:
    """Lines of calls that open a file as text, or take it for text, in the locale's encoding."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", None))
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        modes = [given["mode"]] if "mode" in given else node.args
        binary = any(isinstance(mode, ast.Constant) and mode.value in ("rb", "wb", "ab", "ab+") for mode in modes)
        own = isinstance(node.func, ast.Attribute) and getattr(node.func.value, "id", "") in ("os", "IntuitionResult")
        opens = (
            name in ("open", "fdopen", "NamedTemporaryFile", "FileHandler", "TextIOWrapper") and not binary and not own
        )
        if (opens or name in ("read_text", "write_text") or "text" in given) and "encoding" not in given:
            yield node.lineno


def test_every_text_file_is_opened_as_utf8():
    found = [
        f"{file.relative_to(ROOT)}:{line}"
        for file in SOURCES
        for line in calls_without_encoding(file.read_text("utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("call", "found"),
    [
        ("path.read_text()", True),
        ("path.write_text(text)", True),
        ("path.open('w', newline='')", True),
        ("open(path)", True),
        ("subprocess.run(c, text=True)", True),
        ("path.open('rb')", False),
        ("path.open(mode='wb')", False),
        ("path.read_text(encoding='utf-8')", False),
    ],
)
def test_the_search_finds_what_it_looks_for(call, found):
    assert list(calls_without_encoding(call)) == [1] * found


def run(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess:
    settings = {**os.environ, **ASCII, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, cwd=tmp_path, env=settings, encoding="ascii", check=False)


def test_a_command_in_a_locale_without_utf8(tmp_path):
    """`validate.py` reads a recipe and data with other letters, shows its bars, and writes a report."""
    from tests.data.tokenizers import CHATML, make_tokenizer
    from tests.training.jobs import write_recipe

    file = write_recipe(tmp_path)
    rows = [{"prompt": f"Wie heißt {i}? 名前", "answer": "Zoë", "task": "größe"} for i in range(30)]
    (tmp_path / "tasks.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), "utf-8")
    text = file.read_text("utf-8").replace("system_prompt: ''", "system_prompt: Sei höflich.")
    file.write_text(text, "utf-8")
    make_tokenizer(CHATML).save_pretrained(tmp_path / "model")
    done = run(tmp_path, str(ROOT / "launch" / "validate.py"), "--config", str(file), "--output", "found.json")
    assert done.returncode == 0, done.stderr
    assert "gr\\xf6\\xdfe" in done.stdout
    (task,) = json.loads((tmp_path / "found.json").read_text("utf-8"))["tasks"]
    assert task["task"] == "größe"
    assert task["train"] + task["evaluation"] == 30
