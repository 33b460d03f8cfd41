"""The cache of prepared data: what finds it again, what does not, and who gets which examples."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from tokenizers import normalizers

from tests.data.tokenizers import CHATML, make_tokenizer
from tests.intuition.fakes import FakeEmbedder
from tests.ranks import run_ranks
from tests.tasks import mirrors
from tests.training.jobs import write_recipe
from tests.training.preparations import (
    content,
    made,
    prepare_file,
    training_items,
    training_texts,
    use_embedder,
)
from trex_ds.config import ConfigError

ALL = {"examples": True, "intuition": True}
SCORES = {"examples": False, "intuition": True}
NOTHING = {"examples": False, "intuition": False}
GYM = "{{source: gym:spell_backward, train_examples: 12, evaluation_examples: 3, options: {{max_word_len: {}}}}}"


@pytest.fixture
def embedders(monkeypatch) -> list[FakeEmbedder]:
    return use_embedder(monkeypatch)


def write_rows(file: Path, tasks: dict[str, list[str]]) -> None:
    """A file of prompts by task."""
    rows = [{"prompt": p, "answer": "yes", "task": task} for task, prompts in tasks.items() for p in prompts]
    file.write_text("\n".join(map(json.dumps, rows)))


def add_a_row(folder: Path) -> None:
    with (folder / "tasks.jsonl").open("a") as stream:
        stream.write('\n{"prompt": "spell star backwards", "answer": "rats", "task": "spell"}')


def change_the_template(folder: Path) -> None:
    make_tokenizer(CHATML.replace("You are helpful", "You are kind")).save_pretrained(folder / "model")


def rewrite_the_embedder(folder: Path) -> None:
    (folder / "embedder" / "weights").write_text("others")


def retrain_the_model(folder: Path) -> None:
    tensors = load_file(folder / "model" / "model.safetensors")
    save_file({name: 2 * t for name, t in tensors.items()}, folder / "model" / "model.safetensors", {"format": "pt"})


@pytest.mark.battery
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (["--data.system_prompt", "Be brief"], ALL),
        (["--data.max_length", "95"], ALL),
        (["--tasks.0.seed", "1"], ALL),
        (["--tasks.0.train_examples", "9"], ALL),
        (["--tasks.1.options.max_word_len", "6"], ALL),
        (add_a_row, ALL),
        (change_the_template, ALL),
        (["--intuition.embedder", "another/embedder"], SCORES),
        (["--intuition.revision", "v2"], SCORES),
        (["--intuition.prompt", "clustering: "], SCORES),
        (["--intuition.seed", "1"], SCORES),
        (["--intuition.max_embeddings", "20"], SCORES),
        (["--adapter.num_clusters", "7", "--adapter.intuition_transform", "mapped"], SCORES),
        (rewrite_the_embedder, SCORES),
        (["--tasks.0.weight", "2"], NOTHING),
        (["--training.learning_rate", "1"], NOTHING),
        (["--output_dir", "elsewhere"], NOTHING),
        (["--adapter.num_in_experts", "3", "--adapter.num_out_experts", "2"], NOTHING),
        (["--adapter.intuition_transform", "raw"], NOTHING),
        (["--seed", "1"], NOTHING),
        (["--evaluation.every", "null"], NOTHING),
        (["--data.mixing", "equal", "--data.packing", "true"], NOTHING),
        (retrain_the_model, NOTHING),
    ],
)
def test_what_is_made_again_after_a_change(tmp_path, embedders, change, expected):
    (tmp_path / "embedder").mkdir()
    (tmp_path / "embedder" / "weights").write_text("some")
    file = write_recipe(tmp_path, intuition={"embedder": str(tmp_path / "embedder")})
    tasks = ("--tasks", f"[{{source: 'file:{tmp_path}/tasks.jsonl', evaluation_fraction: 0.3}}, {GYM.format(5)}]")
    assert made(prepare_file(file, *tasks)) == ALL
    if callable(change):
        change(tmp_path)
        change = []
    again = prepare_file(file, *tasks, *change)
    assert made(again) == expected
    assert len(embedders) == 1 + expected["intuition"]


def test_second_preparation_gives_the_same_and_the_first_ones_data_stays(tmp_path, embedders):
    file = write_recipe(tmp_path)
    first = prepare_file(file)
    assert made(first) == ALL
    other = prepare_file(file, "--tasks.0.seed", "1")
    again = prepare_file(file)
    assert made(again) == NOTHING
    assert content(again) == content(first)
    assert content(other)["rows"] != content(first)["rows"]
    assert len(embedders) == 2


def test_another_cache_gives_the_same_data(tmp_path, embedders):
    file = write_recipe(tmp_path)
    assert content(prepare_file(file)) == content(prepare_file(file, "--data.cache", str(tmp_path / "other")))


def test_a_task_that_is_there_already_is_not_made_again_beside_a_new_one(tmp_path, embedders):
    file = write_recipe(tmp_path)
    first = prepare_file(file)
    write_rows(tmp_path / "more.jsonl", {"more": [f"is {i} more" for i in range(30)]})
    before = {path.name for path in (tmp_path / "cache" / "tasks").iterdir() if path.is_dir()}
    more = f"{{source: 'file:{tmp_path}/more.jsonl'}}"
    both = prepare_file(
        file, "--tasks", f"[{{source: 'file:{tmp_path}/tasks.jsonl', evaluation_fraction: 0.3}}, {more}]"
    )
    after = {path.name for path in (tmp_path / "cache" / "tasks").iterdir() if path.is_dir()}
    assert len(after - before) == 1
    assert both.store.counts["sum"] == first.store.counts["sum"]


def prepare_on_a_rank(file: Path) -> dict[str, Any]:
    from trex_ds.launching.process_group import start_distributed

    with pytest.MonkeyPatch.context() as patch:
        use_embedder(patch)
        start_distributed(1)
        return {str(packing): content(prepare_file(file, "--data.packing", packing)) for packing in ("true", "false")}


def test_two_ranks_are_given_what_one_is_given(tmp_path):
    folders = [tmp_path / name for name in ("one", "two")]
    results = []
    for world, folder in zip((1, 2), folders, strict=True):
        folder.mkdir()
        file = write_recipe(folder, data={"cache": str(folder / "cache"), "max_length": 96, "mixing": "equal"})
        results += run_ranks(world, folder, prepare_on_a_rank, file)
    one, first, second = results
    assert one == first == second
    assert one["true"]["row sizes"] != one["false"]["row sizes"]
    assert len(one["true"]["held out"]) >= 2


def hub_recipe(folder: Path) -> tuple[Path, Path]:
    """A recipe on a dataset of the hub, and the dataset's place in the mirror."""
    rows = [{"prompt": f"is {i} even", "answer": ["yes", "no"][i % 2]} for i in range(40)]
    dataset = mirrors.write_dataset(folder / "mirror", "some/parity", {"default": {"train": rows}})
    file = write_recipe(
        folder,
        tasks=[{"source": "hub:some/parity"}],
        data={"cache": str(folder / "cache"), "mirror": str(folder / "mirror")},
    )
    return file, dataset


@pytest.mark.parametrize("gone", ["dataset", "mirror"])
def test_what_is_prepared_is_used_without_a_way_to_its_source(tmp_path, embedders, gone):
    file, dataset = hub_recipe(tmp_path)
    first = prepare_file(file)
    shutil.rmtree(dataset if gone == "dataset" else tmp_path / "mirror")
    again = prepare_file(file)
    assert made(again) == NOTHING
    assert content(again) == content(first)


@pytest.mark.parametrize("gone", ["dataset", "mirror"])
def test_an_unprepared_source_without_a_way_to_it_is_refused(tmp_path, embedders, gone):
    file, dataset = hub_recipe(tmp_path)
    prepare_file(file)
    shutil.rmtree(dataset if gone == "dataset" else tmp_path / "mirror")
    with pytest.raises(ConfigError) as caught:
        prepare_file(file, "--tasks.0.seed", "1")
    assert "hub:some/parity: cannot be reached, and has not been prepared" in str(caught.value)
    assert ("has no folder some/parity" if gone == "dataset" else "data.mirror: no folder") in str(caught.value)


def test_another_mirrors_data_is_not_taken_for_this_ones(tmp_path, embedders):
    file, _ = hub_recipe(tmp_path)
    first = prepare_file(file)
    rows = [{"prompt": f"is {i} odd", "answer": ["no", "yes"][i % 2]} for i in range(40)]
    mirrors.write_dataset(tmp_path / "other", "some/parity", {"default": {"train": rows}})
    other = prepare_file(file, "--data.mirror", str(tmp_path / "other"))
    assert made(other) == ALL
    assert content(other)["rows"] != content(first)["rows"]


def test_prompts_that_are_evaluated_are_not_trained_on(tmp_path, embedders):
    """Prompts of one task in another one's evaluation are dropped too."""
    words = [f"is word {i} long" for i in range(20)]
    write_rows(tmp_path / "train.jsonl", {"a": words})
    write_rows(tmp_path / "evaluation.jsonl", {"b": [*words[:6], "is it"]})
    write_rows(tmp_path / "b.jsonl", {"b": [f"is number {i} large" for i in range(20)]})
    file = write_recipe(
        tmp_path,
        tasks=[
            {"source": f"file:{tmp_path}/train.jsonl", "evaluation_examples": 0},
            {"source": f"file:{tmp_path}/b.jsonl", "evaluation_source": f"file:{tmp_path}/evaluation.jsonl"},
        ],
        evaluation={"every": None},
    )
    prepared = prepare_file(file)
    assert prepared.mixture == {"a": 14, "b": 20}
    texts = " ".join(training_texts(prepared))
    assert [word for word in words if word in texts] == words[6:]


def test_a_task_whose_training_prompts_are_all_evaluated_is_refused(tmp_path, embedders):
    words = [f"is word {i} long" for i in range(20)]
    write_rows(tmp_path / "a.jsonl", {"a": words})
    write_rows(tmp_path / "b.jsonl", {"b": words})
    file = write_recipe(
        tmp_path,
        tasks=[
            {"source": f"file:{tmp_path}/a.jsonl", "evaluation_examples": 0},
            {"source": f"file:{tmp_path}/b.jsonl", "train_examples": 0},
        ],
    )
    with pytest.raises(ConfigError, match="task 'a': all 20 training examples have prompts of the evaluation"):
        prepare_file(file)


def test_held_out_examples_are_not_trained_on_not_even_in_another_task(tmp_path, embedders):
    shared = [f"is word {i} long" for i in range(30)]
    # b is large, so that it holds out other prompts than a.
    write_rows(tmp_path / "own.jsonl", {"a": shared * 2, "b": shared + [f"is {i} odd" for i in range(200)]})
    file = write_recipe(tmp_path, tasks=[{"source": f"file:{tmp_path}/own.jsonl", "evaluation_fraction": 0.2}])
    prepared = prepare_file(file, "--evaluation.held_out", "2")
    held_out = {q.example.text for q in prepared.held_out}
    assert {q.example.task for q in prepared.held_out} == {"a", "b"}
    assert held_out & set(shared)
    texts = training_texts(prepared)
    assert [text for text in held_out if any(text in trained for trained in texts)] == []
    evaluated = {q.example.text for q in prepared.questions}
    assert not held_out & evaluated
    assert len(texts) == sum(prepared.mixture.values())


def test_as_many_are_held_out_as_asked_but_never_more_than_a_tenth(tmp_path, embedders):
    write_rows(tmp_path / "own.jsonl", {"a": [f"is {i} odd" for i in range(50)]})
    file = write_recipe(tmp_path, tasks=[{"source": f"file:{tmp_path}/own.jsonl", "evaluation_examples": 0}])
    for arguments, count in ([], 5), (["--evaluation.held_out", "2"], 2), (["--evaluation.every", "null"], 0):
        prepared = prepare_file(file, *arguments)
        assert len(prepared.held_out) == count
        assert prepared.mixture == {"a": 50 - count}


def test_nothing_to_hold_out_is_said_before_training(tmp_path, embedders):
    write_rows(tmp_path / "own.jsonl", {"a": [f"is {i} odd" for i in range(9)]})
    file = write_recipe(tmp_path, tasks=[{"source": f"file:{tmp_path}/own.jsonl", "evaluation_examples": 0}])
    with pytest.raises(ConfigError, match=r"evaluation\.every: .*10 distinct"):
        prepare_file(file)


def test_a_recipe_without_training_examples_is_refused(tmp_path, embedders):
    file = write_recipe(tmp_path)
    tasks = ("--tasks", f"[{{source: 'file:{tmp_path}/tasks.jsonl', train_examples: 0}}]")
    with pytest.raises(ConfigError, match="none has training examples; give one train_examples other than 0"):
        prepare_file(file, *tasks)
    assert not embedders  # before anything is embedded


def test_a_recipe_without_evaluation_examples_is_prepared(tmp_path, embedders):
    tasks = ("--tasks", f"[{{source: 'file:{tmp_path}/tasks.jsonl', evaluation_examples: 0}}]")
    prepared = prepare_file(write_recipe(tmp_path), *tasks)
    assert prepared.questions == []
    assert len(training_items(prepared)) + len(prepared.held_out) == 36


def test_the_cache_cannot_be_written_to(tmp_path, embedders):
    file = write_recipe(tmp_path)
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(ConfigError, match=rf"data\.cache: {tmp_path}/cache cannot be written to"):
        prepare_file(file)


def test_a_prepared_cache_need_not_be_writable(tmp_path, embedders):
    file = write_recipe(tmp_path)
    first = prepare_file(file)
    for lock in (tmp_path / "cache").rglob("*.lock"):
        lock.unlink()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*")}
    again = prepare_file(file)
    assert content(again) == content(first)
    # A file system that is mounted for reading only would have refused any change.
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*")} == before


def test_a_resumed_job_keeps_its_clusters_without_the_cache(tmp_path, embedders):
    file = write_recipe(tmp_path)
    first = prepare_file(file)
    first.centroids.save(tmp_path / "run")
    (tmp_path / "run" / "checkpoint-2").mkdir()
    shutil.rmtree(tmp_path / "cache")
    add_a_row(tmp_path)  # fitted anew, the clusters would be others
    resumed = prepare_file(file, "--training.resume", "true")
    assert made(resumed) == ALL
    assert resumed.centroids.fingerprint == first.centroids.fingerprint
    assert made(prepare_file(file, "--training.resume", "true")) == NOTHING


def test_a_resumed_job_without_its_centroids_is_told_so(tmp_path, embedders):
    file = write_recipe(tmp_path)
    (tmp_path / "run" / "checkpoint-2").mkdir(parents=True)
    with pytest.raises(ConfigError, match=rf"training\.resume: {tmp_path}/run has a checkpoint but no centroids"):
        prepare_file(file, "--training.resume", "true")


def test_an_embedder_that_cannot_be_opened_is_named(tmp_path):
    file = write_recipe(tmp_path)
    with pytest.raises(ConfigError, match=r"intuition: embedder '/nowhere/embedder' cannot be loaded"):
        prepare_file(file, "--intuition.embedder", "/nowhere/embedder")


def test_what_is_left_out_is_the_same_for_all_seeds_and_no_run_trains_on_it(tmp_path, embedders):
    file = write_recipe(tmp_path, data__left_out=3)
    found = set()
    for seed in "012":
        prepared = prepare_file(file, "--seed", seed)
        left_out = [tuple(prepared.left_out[i]["input_ids"]) for i in range(len(prepared.left_out))]
        assert len(left_out) == 2  # a tenth of each task's
        trained = {tuple(item["input_ids"]) for item in training_items(prepared)}
        assert not trained & set(left_out)
        found.add(tuple(left_out))
    assert len(found) == 1
    with pytest.raises(ConfigError, match=r"data\.left_out: there is nothing to leave out"):
        prepare_file(file, "--tasks.0.train_examples", "9")


def test_answers_longer_than_what_is_generated(tmp_path, embedders, caplog):
    """None of "spell" can score with one token, and of the longest words only a part with four."""
    file = write_recipe(tmp_path, evaluation__every=None)
    prepare_file(file, "--evaluation.max_new_tokens", "1")
    assert re.search(r"task 'spell': all \d evaluation answers have more tokens than .*tokens, 1, and", caplog.text)
    caplog.clear()
    prepare_file(file, "--evaluation.max_new_tokens", "4")
    (warning,) = [record.getMessage() for record in caplog.records if "can never score" in record.getMessage()]
    assert warning.startswith("task 'spell': ")
    assert "take up to 6: raise it" in warning
    caplog.clear()
    prepare_file(file, "--evaluation.max_new_tokens", "5")
    assert not [record for record in caplog.records if "can never score" in record.getMessage()]


def test_references_are_known_as_the_tokenizer_writes_them(tmp_path, embedders):
    """A tokenizer that makes two dots of an ellipsis; and a template that writes no space at an answer's end."""
    file = write_recipe(tmp_path, evaluation__every=None, evaluation__max_new_tokens=20)
    tokenizer = make_tokenizer(CHATML)
    tokenizer.backend_tokenizer.normalizer = normalizers.NFKC()
    tokenizer.save_pretrained(tmp_path / "model")
    answers = {"plain": "seven", "compatible": "x\u00b2", "decomposed": "cafe\u0301"}
    rows = [{"prompt": f"{name} {i}", "answer": text, "task": name} for name, text in answers.items() for i in range(9)]
    (tmp_path / "tasks.jsonl").write_text("\n".join(map(json.dumps, rows)))
    questions = prepare_file(file).questions
    assert {q.example.answer: q.reference for q in questions} == {"seven": None, "x\u00b2": "x2", "cafe\u0301": None}
