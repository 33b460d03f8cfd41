"""launch/report.py: from a recipe to the files, on two ranks; and its exit codes."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

from tests.ranks import run_ranks
from tests.reporting.reports import report
from tests.training.jobs import ROOT, write_recipe

SCRIPT = ROOT / "launch" / "report.py"


def make_report(file: Path) -> list[str]:
    from trex_ds.config import read_recipe
    from trex_ds.reporting import approximation
    from trex_ds.reporting.architectures import ARCHITECTURES
    from trex_ds.reporting.config import ReportRecipe
    from trex_ds.reporting.run import run

    # What other tests look at takes most of a minute.
    approximation.measure.__defaults__ = (((1, 1), (2, 4)), 2, 10)
    for model in ("LLaMA-2-13B", "LLaMA-3-8B", "Qwen2.5-7B"):
        del ARCHITECTURES[model]
    recipe = read_recipe(ReportRecipe, ["--config", str(file)], "")
    return [verdict.name for verdict in run(recipe).verdicts]


def test_report_of_two_ranks(tmp_path):
    overrides = {
        "data__packing": True,
        "training__gradient_accumulation_steps": 2,
        "report": {"timing": {"pairs": 6, "warm_up_steps": 1}, "models": [str(tmp_path / "model")]},
    }
    file = write_recipe(tmp_path, **overrides)
    first, second = run_ranks(2, tmp_path, make_report, file)
    assert first == second
    folder = tmp_path / "run" / "report"
    made = json.loads((folder / "report.json").read_text())
    own = made["counts"][str(tmp_path / "model")]
    assert sum(own["trex"].values()) == 5212
    assert set(made["counts"]) > {"LLaMA-2-7B", "SmolLM2-135M"}
    comparisons = made["throughput"]["comparisons"]
    assert [(c["method"], c["baseline"]) for c in comparisons] == [
        ("lora_r6", "lora_r6"),
        ("trex", "lora_r6"),
        ("trex", "lora_equal"),
    ]
    for found in comparisons:
        assert len(found["ratios"]) == 6
        speed = found["method_speed"]
        assert speed["padded_tokens_per_second"] >= speed["real_tokens_per_second"] > 0
        assert speed["real_tokens_per_second"] > speed["supervised_tokens_per_second"] > 0
    assert set(made["throughput"]["peak_bytes"]) == {"trex", "lora_r6", "lora_equal"}
    assert {v["outcome"] for v in made["verdicts"] if v["name"].startswith("accuracy")} == {"cannot be told"}
    assert made["environment"]["ranks"] == 2
    assert made["seed"] == 0
    assert (folder / "report.md").read_text().startswith("# Report on ")
    assert (folder / "report.html").read_text().endswith("</html>")
    logged = [json.loads(line)["metrics"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert any("report/time/lora_equal/measured" in metrics for metrics in logged)


@pytest.mark.parametrize(("saved", "code"), [(35.0, 0), (20.0, 1)])
def test_check_fails_only_if_a_checked_claim_does_not_hold(tmp_path, monkeypatch, capsys, saved, code):
    monkeypatch.setattr("trex_ds.reporting.run.run", lambda recipe: report(saved))
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--config", str(write_recipe(tmp_path)), "--check"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert ended.value.code == code
    said = capsys.readouterr().err
    assert ("does not hold: 30-40% fewer trainable parameters" in said) == bool(code)
    assert "cannot be told, and is no failure: " in said


def test_check_fails_on_rank_0_alone_so_that_it_is_heard(monkeypatch, capsys):
    from trex_ds.reporting.run import check

    assert check(report(20.0)) == 1
    assert "does not hold" in capsys.readouterr().err
    monkeypatch.setattr("trex_ds.reporting.run.rank", lambda: 1)
    assert check(report(20.0)) == 0
    assert capsys.readouterr().err == ""


def test_everything_wrong_is_said_at_once_with_code_2(tmp_path, monkeypatch, capsys):
    file = write_recipe(tmp_path)
    wrong = ["--comparison", "nowhere.json", "--report.timed", "[sira_8x5]", "--report.adapter", str(tmp_path)]
    wrong += ["--report.timing.pairs", "3", "--report.methods", "{lora_r16: {method: lora, r: 4}}"]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--config", str(file), *wrong])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "report.timing.pairs: must be at least 6, got 3" in said
    assert "Traceback" not in said
    monkeypatch.setattr(sys, "argv", [a for a in sys.argv if a not in ("--report.timing.pairs", "3")])
    with pytest.raises(SystemExit):
        runpy.run_path(str(SCRIPT), run_name="__main__")
    said = capsys.readouterr().err
    assert "comparison: no file 'nowhere.json'" in said
    assert "report.timed.0: 'sira_8x5' is none of the methods: trex, " in said
    assert "report.adapter: no adapter_config.json" in said
    assert "report.methods: lora_r16 is counted anyway" in said


def test_layers_of_all_linears_are_refused_because_loras_cannot_pick_them(tmp_path, monkeypatch, capsys):
    file = write_recipe(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--config", str(file), "--adapter.layers_to_transform", "[0]"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert ended.value.code == 2
    assert "adapter.layers_to_transform: the LoRAs that a report compares with" in capsys.readouterr().err


def test_a_report_is_on_trex(tmp_path, monkeypatch, capsys):
    file = write_recipe(tmp_path, adapter={"method": "lora", "r": 4})
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--config", str(file)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert ended.value.code == 2
    assert "a report is about T-REX's claims" in capsys.readouterr().err
