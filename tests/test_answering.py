"""What an adapter cannot be asked; tests/training/test_job.py has whole adapters answer."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from trex_ds.answering import Answerer

SCRIPT = Path(__file__).parents[1] / "launch" / "answer.py"


def test_a_task_is_refused_by_an_adapter_that_learnt_none_apart(monkeypatch, capsys):
    answerer = Answerer(None, None, None, None)
    with pytest.raises(ValueError, match=r"does not answer by task .* got 'sum'; leave it out"):
        answerer(["1 + 1?"], task="sum")
    monkeypatch.setattr(Answerer, "from_adapter", lambda folder: answerer)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--adapter", "somewhere", "--task", "sum", "1 + 1?"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert ended.value.code == 2
    assert "does not answer by task" in capsys.readouterr().err


@pytest.mark.parametrize("task", [None, "other"])
def test_an_adapter_by_task_wants_one_that_it_learnt(task):
    with pytest.raises(ValueError, match=f"answers by task: give one of spell, sum; got {task!r}"):
        Answerer(None, None, None, None, ["spell", "sum"])(["1 + 1?"], task=task)
