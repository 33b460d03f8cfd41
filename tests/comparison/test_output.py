"""What a comparison shows, on the screen and as Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trex_ds.comparison.bootstrap import IntervalWithP
from trex_ds.comparison.output import print_results, report
from trex_ds.comparison.results import MethodResult, Pair, Results, RunResult

ERROR = "OSError: [Errno 28] no space in [red] or a|b"


def method(name: str, value: float, **overrides: Any) -> MethodResult:
    interval = IntervalWithP(value, value - 0.1, value + 0.1, 0.01)
    values: dict[str, Any] = {
        "name": name,
        "adapter": {},
        "learning_rate": 0.002,
        "tuning": {0.002: 1.5, 0.004: 1.75, 0.008: None},
        "error": None,
        "runs": [RunResult(0, "finished", name, None, {}, value, {"a|b": value})],
        "accuracy": interval,
        "tasks": {"a|b": interval},
        "trainable_parameters": 1000,
        "step_seconds": 1.0,
        "peak_bytes": 2**20,
    }
    return MethodResult(**(values | overrides))


def results() -> Results:
    failed = method("broken", 0.0, accuracy=None, tuning={}, learning_rate=None, error=ERROR)
    difference = IntervalWithP(0.2, 0.1, 0.3, 0.01)
    pair = Pair("mine", "other", [0], difference, {"a|b": difference}, 0.02, True, 1.0, 1.0, 1.0)
    methods = [method("mine", 0.7), method("other", 0.5), failed]
    return Results({}, "mine", methods, 0.25, {"a|b": 0.25}, 0.6, {"a|b": 0.6}, [pair], [f"broken: {ERROR}."])


def test_screen_has_no_columns_of_single_tasks_and_shows_brackets(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    print_results(results(), Path("runs/x"), "mlflow ui")
    shown = capsys.readouterr().out
    assert ERROR in shown
    assert "a|b" not in shown.replace(ERROR, "")
    assert "best guess" in shown
    assert "…" not in shown  # nothing is cut, though the table is wider than the screen


def test_markdown_has_a_column_for_each_task_and_every_loss():
    text = report(results())
    assert "| method | seeds | a\\|b | mean |" in text
    assert "| best guess |  | 60.0 | 60.0 |" in text
    assert "| mine | 1.5000 * | 1.7500 | failed |" in text
    assert f"- broken: {ERROR}." in text
