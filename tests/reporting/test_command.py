"""trex-ds report: from a recipe to the files, on two ranks; and its exit codes."""

from __future__ import annotations

import json
import runpy
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from tests.ranks import run_ranks
from tests.reporting.reports import report
from tests.training.jobs import ROOT, write_recipe

SCRIPT = ROOT / "launch" / "report.py"


def make_report(file: Path) -> list[str]:
    from trex_ds.adapters.architectures import ARCHITECTURES
    from trex_ds.config import read_recipe
    from trex_ds.reporting import approximation
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
    with pytest.raises(SystemExit) if code else nullcontext() as ended:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert (ended.value.code if ended else 0) == code
    said = capsys.readouterr().err
    assert ("does not hold: 30-40% fewer trainable parameters" in said) == bool(code)
    assert "undecided, which is not a failure: " in said


def test_check_fails_on_rank_0_alone_so_that_it_is_heard(monkeypatch, capsys):
    from trex_ds.reporting.run import check

    assert check(report(20.0)) == 1
    assert "does not hold" in capsys.readouterr().err
    monkeypatch.setattr("trex_ds.reporting.run.rank", lambda: 1)
    assert check(report(20.0)) == 0
    assert capsys.readouterr().err == ""


def test_everything_wrong_is_said_at_once_with_code_2(tmp_path, monkeypatch, capsys):
    file = write_recipe(tmp_path)
    wrong = [
        "--comparison",
        "nowhere.json",
        "--report.timed",
        "[sira_8x5, trex_8x8]",
        "--report.adapter",
        str(tmp_path),
    ]
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
    assert "report.timed.0: 'sira_8x5' is not one of the methods: trex, " in said
    assert "report.adapter: no adapter_config.json" in said
    assert "report.methods: lora_r16 is counted anyway" in said
    assert "report.timed: trex_8x8: has 64 clusters, but batches have the intuition of the recipe's adapter" in said


def refused(tmp_path: Path, *options: str, **overrides: Any) -> list[str]:
    from trex_ds.config import ConfigError, read_recipe
    from trex_ds.reporting.config import ReportRecipe

    with pytest.raises(ConfigError) as raised:
        read_recipe(ReportRecipe, ["--config", str(write_recipe(tmp_path, **overrides)), *options], "")
    return raised.value.problems


METHODS = {
    "loha": {"method": "loha", "r": 4},
    "poly": {"method": "poly", "r": 4},
    "prompts": {"method": "prompt_tuning", "num_virtual_tokens": 4},
    "lora": {"method": "lora", "r": 4},
}


def test_methods_that_cannot_be_timed_as_the_recipe_trains_are_refused(tmp_path):
    found = refused(tmp_path, data__packing=True, report={"methods": METHODS, "timed": list(METHODS)})
    lines = {name: [line for line in found if line.startswith(f"report.timed: {name}: ")] for name in METHODS}
    assert "training.deepspeed: adapter.method loha does not work with it" in lines["loha"][0]
    assert any("learns tasks apart" in line for line in lines["poly"])
    assert any("data.packing: adapter.method prompt_tuning" in line for line in lines["prompts"])
    assert lines["lora"] == []


def test_what_is_wrong_with_the_recipe_is_not_said_again_of_timed_methods(tmp_path):
    found = refused(tmp_path, "--model.dtype", "bfloat16", report={"methods": METHODS, "timed": ["lora"]})
    assert [line.partition(":")[0] for line in found] == ["training.deepspeed"]


def test_the_name_of_the_lora_of_equal_size_is_taken(tmp_path):
    found = refused(tmp_path, report={"methods": {"lora_equal": METHODS["lora"]}})
    assert [line.split(";")[0] for line in found] == ["report.methods: lora_equal is counted anyway"]


@pytest.mark.parametrize("content", ["method,seed", "[]", '{"methods": []}'])
def test_what_is_no_comparison_is_refused_before_anything_is_measured(tmp_path, content):
    file = tmp_path / "scores"
    file.write_text(content)
    (found,) = refused(tmp_path, "--comparison", str(file))
    assert "is not a comparison.json that trex-ds compare wrote" in found


def test_models_that_the_adapter_does_not_fit_are_left_out(tmp_path, monkeypatch, caplog):
    from trex_ds.config import ConfigError, read_recipe
    from trex_ds.reporting import run
    from trex_ds.reporting.config import ReportRecipe

    monkeypatch.setattr(run, "ARCHITECTURES", ("SmolLM2-135M",))
    other = tmp_path / "gpt"
    other.mkdir()
    sizes = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    (other / "config.json").write_text(json.dumps({"model_type": "gpt_neox", "intermediate_size": 48, **sizes}))
    file = write_recipe(tmp_path, adapter__target_modules=["q_proj"], report={"models": [str(other)]})
    counted, rank = run._counts(read_recipe(ReportRecipe, ["--config", str(file)], ""))
    assert set(counted) == {str(tmp_path / "model"), "SmolLM2-135M"}
    assert rank == -(-(2 * 32 + 3 * 32 + 6 * 32 + 2) // 64)
    assert f"{other} is left out, the recipe's adapter cannot be put on it" in caplog.text
    file = write_recipe(tmp_path, adapter__target_modules=["query_key_value"])
    with pytest.raises(ConfigError, match="adapter: cannot be put on"):
        run._counts(read_recipe(ReportRecipe, ["--config", str(file)], ""))


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
