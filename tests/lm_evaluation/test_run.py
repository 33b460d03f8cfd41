from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model

from tests.adapters.test_peft import perturb
from tests.ranks import run_ranks
from tests.tasks import mirrors
from tests.training.jobs import ROOT, write_model
from trex_ds import Centroids, TRexConfig
from trex_ds.config import ConfigError
from trex_ds.intuition.config import EMBEDDED_MINILM
from trex_ds.intuition.embedder import SentenceTransformerEmbedder
from trex_ds.lm_evaluation.arguments import parse
from trex_ds.modeling.base import load_base_model
from trex_ds.modeling.config import ModelConfig

TASKS = "boolq,winogrande,copa"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A mirror, a base model, a T-REX adapter and a LoRA."""
    folder = tmp_path_factory.mktemp("benchmarks")
    mirrors.write_mirror(folder / "mirror")
    write_model(folder / "model")
    base = load_base_model(ModelConfig(str(folder / "model"), dtype="float32"))
    embedder = SentenceTransformerEmbedder(EMBEDDED_MINILM)
    vectors = torch.nn.functional.normalize(torch.randn(32, 384, generator=torch.Generator().manual_seed(0)), dim=1)
    centroids = Centroids(vectors, torch.zeros(32), torch.ones(32), embedder.identity, "data", seed=0, num_fitted=32)
    config = TRexConfig(target_modules="all-linear")
    config.attach_centroids(centroids)
    model = get_peft_model(base, config)
    perturb(model)
    model.save_pretrained(folder / "adapter")
    recipe = {"model": {"name": str(folder / "model"), "dtype": "float32"}, "data": {"system_prompt": None}}
    (folder / "adapter" / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    lora = get_peft_model(model.unload(), LoraConfig(init_lora_weights=False, target_modules="all-linear"))
    lora.save_pretrained(folder / "lora")
    (folder / "runs").mkdir()
    return folder


def evaluate(folder: Path, output: str, *options: str) -> None:
    """Through the job, as launch/eval.py runs it."""
    from trex_ds.lm_evaluation.run import run

    given = ["--mirror", str(folder / "mirror"), "--output", str(folder / output), *options]
    run(parse(given if "--tasks" in options else [*given, "--tasks", TASKS], ""))


def table(folder: Path, output: str) -> dict:
    return json.loads((folder / output / "table.json").read_text())


def test_adapter_beside_its_base_on_one_rank_and_on_two(folder, tmp_path):
    options = ("--adapter", str(folder / "adapter"), "--batch_size", "3")
    run_ranks(1, tmp_path, evaluate, folder, "one", *options)
    run_ranks(2, tmp_path, evaluate, folder, "two", *options)
    one, two = table(folder, "one"), table(folder, "two")
    assert one["rows"] == two["rows"]
    rows = {row["task"]: row for row in one["rows"]}
    assert {task: row["n"] for task, row in rows.items()} == {"boolq": 7, "winogrande": 5, "copa": 5}
    for task, row in rows.items():
        assert row["difference"]["value"] == pytest.approx(row["value"] - row["base"])
        files = [folder / "one" / samples / f"{task}.jsonl" for samples in ("samples", "samples_base")]
        items, base = [[json.loads(line) for line in file.read_text().splitlines()] for file in files]
        assert len(items) == row["n"]
        assert sum(item["acc"] for item in items) / len(items) == pytest.approx(row["value"])
        assert [item["resps"] for item in items] != [item["resps"] for item in base]
    results = json.loads((folder / "one" / "results.json").read_text())
    assert {"results", "configs", "versions", "n-shot", "config", "git_hash"} <= results.keys()
    assert results["results"]["boolq"]["acc,none"] == pytest.approx(rows["boolq"]["value"])
    assert results["config"]["model_args"]["base"] == str(folder / "model")
    assert "lm_eval" in one["environment"]["versions"]


def test_lora_and_bare_model(folder, tmp_path):
    options = ("--model", str(folder / "model"), "--dtype", "float32", "--limit", "2", "--num_fewshot", "1")
    run_ranks(1, tmp_path, evaluate, folder, "lora_out", *options, "--lora", str(folder / "lora"))
    run_ranks(1, tmp_path, evaluate, folder, "bare_out", *options)
    lora, bare = table(folder, "lora_out"), table(folder, "bare_out")
    for with_lora, without in zip(lora["rows"], bare["rows"], strict=True):
        assert with_lora["n"] == without["n"] == 2
        assert with_lora["base"] == without["value"]
        assert without["base"] is without["difference"] is None
    assert not (folder / "bare_out" / "results_base.json").exists()
    results = json.loads((folder / "bare_out" / "results.json").read_text())
    assert results["n-shot"]["boolq"] == 1


def evaluate_with_a_fault(folder: Path, output: str, place: str, nth_call: int, *options: str) -> None:
    """Run `evaluate`, but the n-th call of lm-eval or of the table fails."""
    from trex_ds.lm_evaluation import run as benchmarks

    owner, name = {"lm_eval": (benchmarks.lm_eval, "simple_evaluate"), "table": (benchmarks, "rows_of")}[place]
    original, calls = getattr(owner, name), []

    def failing(*arguments, **settings):
        calls.append(1)
        if len(calls) == nth_call:
            raise TypeError("no such filter")
        return original(*arguments, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, failing)
        evaluate(folder, output, *options)


def test_what_was_evaluated_is_kept_when_the_table_fails(folder, tmp_path):
    output = folder / "no_table"
    options = ("--model", str(folder / "model"), "--dtype", "float32", "--lora", str(folder / "lora"))
    message = f"RuntimeError: no table could be made .TypeError: no such filter., but all .* are in {output}"
    with pytest.raises(AssertionError, match=message):
        run_ranks(1, tmp_path, evaluate_with_a_fault, folder, "no_table", "table", 1, *options)
    for suffix in ("", "_base"):
        results = json.loads((output / f"results{suffix}.json").read_text())["results"]
        for task in TASKS.split(","):
            items = [
                json.loads(line) for line in (output / f"samples{suffix}" / f"{task}.jsonl").read_text().splitlines()
            ]
            assert sum(item["acc"] for item in items) / len(items) == pytest.approx(results[task]["acc,none"])
    assert not (output / "table.json").exists()


def test_tasks_that_were_done_are_kept_when_a_later_one_fails(folder, tmp_path):
    output = folder / "interrupted"
    (output / "samples_base").mkdir(parents=True)
    for old in ("table.json", "results_base.json", "samples_base/old.jsonl"):
        (output / old).write_text("of another evaluation")
    options = ("--model", str(folder / "model"), "--dtype", "float32")
    with pytest.raises(AssertionError, match="TypeError: no such filter"):
        run_ranks(1, tmp_path, evaluate_with_a_fault, folder, "interrupted", "lm_eval", 3, *options)
    assert {file.name for file in output.rglob("*.json*")} == {"results.json", "boolq.jsonl", "winogrande.jsonl"}
    results = json.loads((output / "results.json").read_text())
    assert set(results["results"]) == set(results["n-samples"]) == {"boolq", "winogrande"}


def test_tasks_that_were_not_trained_on_are_marked_and_have_their_own_mean(folder, tmp_path):
    adapter = shutil.copytree(folder / "adapter", tmp_path / "adapter")
    recipe = yaml.safe_load((adapter / "recipe.yaml").read_text())
    entries = [
        {"source": "lm_eval:boolq"},
        {"source": "lm_eval:copa", "train_examples": 0},
        {"source": "lm_eval:winogrande", "train_examples": 5},
        {"source": "gym:chain_sum"},
    ]
    (adapter / "recipe.yaml").write_text(yaml.safe_dump(recipe | {"tasks": entries}))
    names = "boolq,copa,winogrande,commonsense_qa"
    run_ranks(1, tmp_path, evaluate, folder, "marked", "--adapter", str(adapter), "--tasks", names)
    found = table(folder, "marked")
    rows = {row["task"]: row for row in found["rows"]}
    assert {name: row["trained"] for name, row in rows.items()} == {
        **{"boolq": 1.0, "winogrande": 1.0},
        **{"copa": 0.0, "commonsense_qa": 0.0},
    }
    own, others = found["means"]
    for mean, names in ((own, ("boolq", "winogrande")), (others, ("copa", "commonsense_qa"))):
        for field in ("value", "base"):
            assert mean[field] == pytest.approx(sum(rows[name][field] for name in names) / 2)
        assert mean["n"] == sum(rows[name]["n"] for name in names)
        assert mean["difference"]["value"] == pytest.approx(mean["value"] - mean["base"])


def test_all_that_is_wrong_is_said_at_once(folder, tmp_path):
    (tmp_path / "file").write_text("")
    given = ["--tasks", "bolq,copa", "--adapter", str(folder), "--lora", "x", "--limit", "0", "--mirror", "nowhere"]
    given += ["--output", str(tmp_path / "file" / "results")]
    with pytest.raises(ConfigError) as caught:
        parse(given, "")
    lora, adapter, task, limit, output, mirror = caught.value.problems
    assert lora.startswith("--lora: not together with --adapter")
    assert adapter.startswith(f"--adapter: {folder} has no adapter_config.json, ")
    assert "has no task 'bolq'; did you mean boolq" in task
    assert limit == "--limit: must be at least 1, got 0 (command line)"
    assert output.startswith(f"--output: {tmp_path}/file/results cannot be written to: ")
    assert mirror.startswith("--mirror: no folder 'nowhere' in ")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ([], "--adapter or --model: one of them is needed"),
        (["--lora", "x"], "--lora needs the --model that it was trained on"),
        (["--model", "{folder}/model", "--lora", "{folder}/adapter"], "holds a T-REX adapter; give it as --adapter"),
        (["--model", "{folder}/none"], "--model: '.*none' is neither an existing folder nor a hub id"),
        (["--adapter", "{folder}/none"], "--adapter: no folder '.*none'"),
        (["--adapter", "{folder}"], "has no adapter_config.json.*; did you mean .*/adapter?"),
        (["--model", "{folder}/model", "--lora", "{folder}/runs"], "has no adapter_config.json, adapter_model.*; copy"),
    ],
)
def test_wrong_models(folder, options, problem):
    with pytest.raises(ConfigError, match=problem):
        parse(["--tasks", "boolq", *(option.format(folder=folder) for option in options)], "")


@pytest.mark.parametrize("option", ["--adapter", "--lora"])
def test_adapter_that_answers_by_task_is_refused(folder, tmp_path, option):
    for name in ("adapter_model.safetensors", "recipe.yaml", "tasks.json"):
        (tmp_path / name).touch()
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "POLY"}')
    given = ["--tasks", "boolq", option, str(tmp_path)]
    given += ["--model", str(folder / "model")] if option == "--lora" else []
    with pytest.raises(ConfigError, match=f"{option}: .* answers by task .*does not tell of which task a question is"):
        parse(given, "")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--tasks", "piqa"], "the dataset 'baber/piqa' cannot be loaded from the hub: .*; check the connection"),
        (["--tasks", "copa,copa_gone"], "has no task 'copa_gone'"),
    ],
)
def test_what_only_loading_shows_is_no_traceback(folder, tmp_path, options, problem):
    given = ["--model", str(folder / "model"), "--dtype", "float32", *options]
    with pytest.raises(AssertionError, match=f"(?s)ConfigError: 1 problem found.*{problem}"):
        run_ranks(1, tmp_path, evaluate, folder, "none", *given)


def test_chat_template_that_is_not_there_is_said(folder, tmp_path):
    plain = shutil.copytree(folder / "model", tmp_path / "plain")
    (plain / "chat_template.jinja").unlink()
    given = ["--model", str(plain), "--dtype", "float32", "--apply_chat_template"]
    with pytest.raises(AssertionError, match=r"--apply_chat_template: the tokenizer of '.*plain' has no chat template"):
        run_ranks(1, tmp_path, evaluate, folder, "none", *given)


def test_script_without_lm_eval_names_what_to_install(folder):
    given = ["launch/eval.py", "--tasks", "boolq", "--model", str(folder / "model")]
    done = subprocess.run(
        [sys.executable, "-m", "tests.without_lm_eval", *given], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "lm_eval:boolq needs lm-evaluation-harness, which is not installed: pip install" in done.stderr
    assert "Traceback" not in done.stderr


def test_script_ends_with_code_2():
    done = subprocess.run(
        [sys.executable, "launch/eval.py", "--tasks", "bolq", "--local_rank=0"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.count("--tasks: ") == 1
    assert "did you mean boolq" in done.stderr
    assert "--adapter or --model: one of them is needed" in done.stderr
