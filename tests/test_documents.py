"""Documents: links and code references lead somewhere, every page is in the index, every figure has its file."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_floors import FLOORS
from tools.references import ROOT, documents, problems
from trex_ds.version import __version__

RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "results.md"
TABLES = ("compare_gym", "compare_real")
METHODS = {
    "T-REX (4, 8), soft gates (`gate_sharpness: 4`)": "trex_k4",
    "T-REX (4, 8), raw intuition as in the paper's code": "trex_raw",
    "T-REX (4, 8), centered intuition": "trex",
    "T-REX, bottleneck router": "trex_bottleneck",
    "T-REX, factorized router": "trex_factorized",
    "LoRA r=22, of equal size": "lora_equal",
    "LoRA r=32": "lora_r32",
    "SMoRA r=32": "smora_r32",
    "HydraLoRA 3 x r16": "hydralora_k3_r16",
    "MoLoRA 8 x r4": "molora_8x4",
    "*best guess*": "best guess",
    "*base model*": "base model",
}


@pytest.mark.parametrize("file", documents(), ids=lambda file: str(file.relative_to(ROOT)))
def test_links_and_code_references_lead_somewhere(file):
    assert problems(file) == []


def test_a_reference_that_leads_nowhere_is_told(tmp_path):
    (tmp_path / "code.py").write_text("def here(): ...\nclass C:\n    x: int = 1\n    def m(self): ...\n")
    text = (
        "# A `b`, and c\n[1](#a-b-and-c) [2](#nowhere) [3](none.md) [4](https://x.y)\n"
        "`code.py:here` `code.py:C.m` `code.py:C.x` `code.py:gone` `gone.py:here` `docs/gone.md`\n"
        "```\n[5](none.md)\n```\n"
    )
    (tmp_path / "page.md").write_text(text)
    told = [line.removeprefix(f"{tmp_path / 'page.md'}: ") for line in problems(tmp_path / "page.md", tmp_path)]
    assert told == [
        "no heading #nowhere",
        "no file none.md",
        "no gone in code.py",
        "no file gone.py",
        "no file docs/gone.md",
    ]


def test_every_page_is_in_the_index():
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    pages = sorted(file.name for file in (ROOT / "docs").glob("*.md") if file.name != "README.md")
    assert [page for page in pages if f"]({page})" not in index] == []


def test_the_floors_are_those_that_imports_are_held_to():
    found = rows(ROOT / "docs" / "architecture.md", "## Floors")
    rooms = {int(row["floor"]): set(re.findall(r"`(\w+)`", row["rooms and modules"])) for row in found}
    assert rooms == {number: set(names) for number, names in enumerate(FLOORS, 1)}


def test_the_version_is_the_same_everywhere():
    assert f"version: {__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"## {__version__} " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def rows(file: Path, heading: str) -> list[dict[str, str]]:
    """The first table below a heading."""
    text = file.read_text(encoding="utf-8").partition(f"{heading}\n")[2]
    lines = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert lines is not None, f"{file} has no table below {heading}"
    names, _, *table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[0].splitlines()]
    return [dict(zip(names, row, strict=True)) for row in table]


def percent(value: dict[str, float], sign: str = "") -> str:
    return f"{100 * value['value']:{sign}.1f} ± {100 * value['standard_error']:.1f}"


@pytest.mark.parametrize(
    ("page", "heading"), [("docs/results.md", "## The quickstart"), ("README.md", "## What comes out")]
)
def test_the_quickstarts_table_is_that_of_its_file(page, heading):
    result = json.loads((RESULTS / "quickstart.json").read_text(encoding="utf-8"))
    found = rows(ROOT / page, heading)
    expected = [*result["tasks"].items(), ("mean", result["mean"])]
    assert [row["task"] for row in found] == [name for name, _ in expected]
    for row, (_, own) in zip(found, expected, strict=True):
        assert row["n"] == str(own["adapted"]["n"])
        assert row["best guess"] == f"{100 * own['best_guess']:.1f}"
        assert row["base"] == percent(own["base"])
        assert row["adapted"] == percent(own["adapted"])
        assert row.get("difference", percent(own["difference"], "+")) == percent(own["difference"], "+")


def test_the_quickstarts_examples_are_those_of_its_file():
    result = json.loads((RESULTS / "quickstart.json").read_text(encoding="utf-8"))
    examples = {example["task"]: example for example in result["examples"]}
    for row in rows(PAGE, "The first evaluation\nexample of each task:"):
        example = examples.pop(row["task"])
        assert row["asked"].removesuffix("=").strip() in example["prompt"]
        assert (row["right"], row["adapted"]) == (example["answer"], example["adapted"])
        assert example["base"].strip().startswith(row["base"])
    assert examples == {}


@pytest.mark.parametrize(
    ("name", "heading"), zip(TABLES, ("### Six procedural tasks", "### Six public benchmarks"), strict=True)
)
def test_a_comparisons_table_is_that_of_its_file(name, heading):
    file = RESULTS / name / "comparison.md"
    sizes = {row["method"]: row["trainable parameters"].replace(",", "") for row in rows(file, "## Methods")}
    accuracies = {row["method"]: row["mean"] for row in rows(file, "## Accuracy in %, with 95% intervals")}
    pairs = rows(file, "## Differences in points, paired, with 95% intervals; ratios of cost")
    against = {(row["method"], row["against"]): row for row in pairs}
    found = rows(PAGE, heading)
    assert {METHODS[row["method"]] for row in found} == accuracies.keys()
    for row in found:
        method = METHODS[row["method"]]
        assert row["accuracy"] == accuracies[method]
        assert row["trained"] == (f"{int(sizes[method]) / 1e6:.2f} M" if method in sizes else "")
        for column, other in (("against LoRA of equal size", "lora_equal"), ("against LoRA r=32", "lora_r32")):
            assert row[column] == (against[method, other]["mean"] if (method, other) in against else "")
        if time := row.get("step time over LoRA r=32"):
            assert time == against[method, "lora_r32"]["step time"]


def test_every_interval_is_in_a_file_of_results():
    written = " ".join(file.read_text(encoding="utf-8") for file in RESULTS.rglob("*.md"))
    intervals = re.findall(r"[+-]?[\d.]+x? \([+-]?[\d.]+ to [+-]?[\d.]+\)", PAGE.read_text(encoding="utf-8"))
    assert intervals
    assert [interval for interval in intervals if interval not in written] == []


COLLECTIVES = {"on_rank_zero", "agreed", "gather_objects", "sum_over_ranks", "all_reduce", "all_gather_object"}
COLLECTIVES |= {"broadcast_object_list", "barrier", "GatheredParameters"}


def collectives(file: Path) -> Iterator[str]:
    """Public functions and methods of a file that call a collective themselves; for `__init__` the class."""
    for outer in ast.parse(file.read_text(encoding="utf-8")).body:
        inner = [(outer.name, method) for method in outer.body] if isinstance(outer, ast.ClassDef) else [("", outer)]
        for owner, node in inner:
            if not isinstance(node, ast.FunctionDef):
                continue
            calls = [call.func for call in ast.walk(node) if isinstance(call, ast.Call)]
            if not COLLECTIVES & {getattr(call, "attr", getattr(call, "id", "")) for call in calls}:
                continue
            name = (
                node.name if not owner else owner if node.name in ("__init__", "__call__") else f"{owner}.{node.name}"
            )
            if not re.search(r"(^|\.)_", name):
                yield name


def test_the_table_of_collectives_is_complete():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text.partition("## Collectives")[2].partition("\n## ")[0]
    named = set(re.findall(r"`([\w/]+\.py):([\w.]+)`", table))
    missing = []
    for file in sorted((ROOT / "trex_ds").rglob("*.py")):
        path = str(file.relative_to(ROOT))
        missing += [f"{path}:{n}" for n in collectives(file) if not {(path, n), (path, n.partition(".")[0])} & named]
    assert missing == []
