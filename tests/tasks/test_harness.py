from __future__ import annotations

import json
import logging
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.tasks import mirrors
from tests.tasks.reading import problems_of
from trex_ds.tasks.base import Example
from trex_ds.tasks.config import TaskConfig
from trex_ds.tasks.harness import index
from trex_ds.tasks.harness import loading as harness_loading
from trex_ds.tasks.harness.loading import load_tasks
from trex_ds.tasks.source import source_of
from trex_ds.tasks.sources.lm_eval import choose_documents


@pytest.fixture(scope="module")
def mirror(tmp_path_factory) -> Path:
    return mirrors.write_mirror(tmp_path_factory.mktemp("mirror"))


def examples(name: str, mirror: Path, **settings) -> dict[str, list[Example]]:
    found: dict[str, list[Example]] = {"train": [], "evaluation": []}
    for split, example in source_of(TaskConfig(f"lm_eval:{name}", **settings), str(mirror)).examples():
        found[split].append(example)
    return found


def check(example: Example, prompt: str, answer: str, choices: tuple[str, ...]) -> None:
    assert (example.prompt, example.answer, example.choices, example.plain) == (prompt, answer, choices, True)


def test_label_that_is_an_index(mirror):
    found = examples("boolq", mirror)
    prompt = "Numbers such as 1 are even or odd.\nQuestion: is 1 even?\nAnswer:"
    check(found["train"][1], prompt, " no", (" no", " yes"))
    assert found["train"][1].record == {
        "lm_eval": "boolq",
        "split": "train",
        "dataset_split": "train",
        "doc_id": 1,
        "contexts": [prompt],
    }
    assert (len(found["train"]), len(found["evaluation"])) == (12, 7)
    assert found["evaluation"][0].record["dataset_split"] == "validation"
    json.dumps(found["train"][1].record)


def test_label_that_is_the_choice_itself(mirror):
    found = examples("copa", mirror)
    check(
        found["train"][0], "The glass 0 fell therefore", "  it broke.", ("  it broke.", "  she laughed.")
    )  # lm-eval's own two spaces
    (example,) = [e for e in examples("commonsense_qa", mirror)["train"] if "shoe 2?" in e.prompt]
    assert example.answer == " C"
    assert example.prompt.endswith("\nE. sea\nAnswer:")


def test_answer_after_several_contexts(mirror):
    found = examples("winogrande", mirror)
    contexts = ("The cat 1 saw the dog because the cat 1", "The cat 1 saw the dog because the dog")
    check(found["train"][1], contexts[1], " was awake.", contexts)
    assert found["train"][1].record["contexts"] == list(contexts)


def test_choices_with_line_breaks(mirror):
    check(
        examples("multirc", mirror)["train"][0],
        "Text 0.\nQuestion: What?\nAnswer:",
        " it 0\nIs the answer correct? yes",
        (" it 0\nIs the answer correct? yes", " it 0\nIs the answer correct? no"),
    )


def test_caps_choose_by_seed_in_order_of_documents(mirror):
    ids = [
        [e.record["doc_id"] for e in examples("boolq", mirror, train_examples=5, seed=s)["train"]] for s in (0, 0, 1)
    ]
    assert ids[0] == ids[1] == sorted(ids[0])
    assert len(ids[0]) == 5
    assert ids[2] != ids[0]
    assert not examples("boolq", mirror, train_examples=0)["train"]
    assert not examples("boolq", mirror, evaluation_examples=0)["evaluation"]
    assert len(examples("boolq", mirror, evaluation_examples=99)["evaluation"]) == 7


def test_caps_are_spread_over_subtasks():
    chosen = choose_documents({"a": 100, "b": 10, "c": 1}, 11, (0, "train"))
    assert {name: len(ids) for name, ids in chosen.items()} == {"a": 10, "b": 1, "c": 0}
    assert [*choose_documents({"a": 3}, None, (0, "train"))["a"]] == [0, 1, 2]


def test_documents_without_a_label_are_left_out_and_counted(tmp_path, caplog):
    mirrors.write_dataset(
        tmp_path,
        "aps/super_glue",
        {"boolq": {"train": mirrors.boolq(4) + mirrors.boolq(2, 50, label=-1), "validation": mirrors.boolq(2)}},
    )
    with caplog.at_level(logging.WARNING):
        assert len(examples("boolq", tmp_path)["train"]) == 4
    assert "lm_eval:boolq: left out 2 documents of train, which have no label" in caplog.text


def test_label_out_of_range(tmp_path):
    sound, bad = mirrors.boolq(2), mirrors.boolq(1, label=2)
    mirrors.write_dataset(tmp_path, "aps/super_glue", {"boolq": {"train": sound + bad, "validation": sound}})
    with pytest.raises(ValueError, match=r"boolq, document 2: its label 2 is not in 0..1; correct the data"):
        examples("boolq", tmp_path)
    mirrors.write_dataset(tmp_path, "aps/super_glue", {"boolq": {"train": sound, "validation": bad}})
    with pytest.raises(ValueError, match="lm_eval:boolq: lm-eval cannot set up the task: IndexError"):
        examples("boolq", tmp_path)


def test_split_without_labels(tmp_path):
    splits = {"train": mirrors.boolq(4, label=-1), "validation": mirrors.boolq(2)}
    mirrors.write_dataset(tmp_path, "aps/super_glue", {"boolq": splits})
    with pytest.raises(ValueError, match="no document of train has a label, so there is no train example"):
        examples("boolq", tmp_path)


def test_copies_are_kept_and_used_alone(mirror, tmp_path):
    moved = tmp_path / "mirror"
    shutil.copytree(mirror, moved)
    copies = tmp_path / "copies"
    first = load_tasks(["boolq", "winogrande"], moved, copies)
    shutil.rmtree(moved)
    again = load_tasks(["boolq", "winogrande"], None, copies, only_copies=True)
    for name in ("boolq", "winogrande"):
        assert list(again.tasks[name].eval_docs) == list(first.tasks[name].eval_docs)
    with pytest.raises(ValueError, match=r"lm_eval:copa: no copy of the dataset 'aps/super_glue' \(copa\) in .*copies"):
        load_tasks(["copa"], None, copies, only_copies=True)


def test_what_the_mirror_lacks_comes_from_the_hub(mirror):
    with pytest.raises(ValueError, match=r"lm_eval:piqa: the dataset 'baber/piqa' cannot be loaded from the hub: .*"):
        load_tasks(["piqa"], mirror)


def test_a_package_that_a_task_needs_is_not_called_bad_data(mirror, monkeypatch):
    def load(names):
        raise ModuleNotFoundError("No module named 'antlr4'")

    monkeypatch.setattr(harness_loading, "manager", lambda name: SimpleNamespace(load=load))
    message = "cannot set up the task: ModuleNotFoundError: No module named 'antlr4'; install the package it needs"
    with pytest.raises(ValueError, match=f"lm_eval:boolq: lm-eval {message}"):
        load_tasks(["boolq"], mirror)


def test_one_task_twice_is_refused(tmp_path):
    choices = {"text": ["ice", "fire"], "label": ["A", "B"]}
    rows = [{"id": "x", "question": "What melts?", "choices": choices, "answerKey": "A"}]
    splits = {"train": rows, "validation": rows, "test": rows}
    mirrors.write_dataset(tmp_path, "allenai/ai2_arc", {"ARC-Easy": splits, "ARC-Challenge": splits})
    with pytest.raises(ValueError, match="lm_eval:arc_easy and lm_eval:ai2_arc both have the task arc_easy"):
        load_tasks(["ai2_arc", "arc_easy"], tmp_path)
    assert load_tasks(["ai2_arc"], tmp_path).members == {"ai2_arc": ("arc_challenge", "arc_easy")}


ANLI = {"uid": "u", "premise": "A is B.", "hypothesis": "B is A.", "reason": ""}
PIQA = {"goal": "Boil water", "sol1": "Heat it.", "sol2": "Cool it.", "label": 0}
SIQA = {"context": "Al ran.", "question": "Why?", "answerA": "late", "answerB": "bored", "answerC": "ill", "label": "3"}
HELLASWAG = {
    **{"ind": 1, "activity_label": "Tea", "ctx_a": "He boils [x] water.", "ctx_b": "he", "ctx": "", "split": "val"},
    **{"endings": ["pours it.", "eats it.", "sings.", "sleeps."], "source_id": "s", "split_type": "in", "label": "1"},
}
BBH = {"input": "not True is", "target": "False"}


@pytest.mark.parametrize(
    ("name", "hub_id", "configs", "expected"),
    [
        (
            "anli_r1",
            "facebook/anli",
            {"plain_text": {split: [ANLI | {"label": 2}] for split in ["train_r1", "dev_r1", "test_r1"]}},
            ("A is B.\nQuestion: B is A. True, False, or Neither?\nAnswer:", " False", (" True", " Neither", " False")),
        ),
        (
            "piqa",
            "baber/piqa",
            {"default": {split: [PIQA] for split in ["train", "validation", "test"]}},
            ("Question: Boil water\nAnswer:", " Heat it.", (" Heat it.", " Cool it.")),
        ),
        (
            "social_iqa",
            "lighteval/siqa",
            {"default": {split: [SIQA] for split in ["train", "validation"]}},
            ("Q: Al ran. Why?\nA:", " ill", (" late", " bored", " ill")),
        ),
        (
            "hellaswag",
            "Rowan/hellaswag",
            {"default": {split: [HELLASWAG] for split in ["train", "validation"]}},
            ("Tea: He boils water. He", " eats it.", (" pours it.", " eats it.", " sings.", " sleeps.")),
        ),
        (
            "bbh_zeroshot_boolean_expressions",
            "SaylorTwift/bbh",
            {"boolean_expressions": {"test": [BBH]}},
            ("Evaluate the result of a random Boolean expression.\n\nQ: not True is\nA:", " False", ()),
        ),
    ],
)
def test_renderings_of_the_papers_other_tasks(tmp_path, name, hub_id, configs, expected):
    mirrors.write_dataset(tmp_path, hub_id, configs)
    found = examples(name, tmp_path, train_examples=0 if "bbh" in name else None)
    for example in found["train"] + found["evaluation"]:
        check(example, *expected)
    assert len(found["evaluation"]) == 1


@pytest.mark.parametrize(
    ("name", "settings", "problem"),
    [
        ("bolq", {}, r"source: lm-eval [\d.]+ has no task 'bolq'; did you mean boolq or"),
        ("humaneval", {"train_examples": 0}, "humaneval cannot be used: runs the generated text as code"),
        ("mmmu_val", {"train_examples": 0}, "one of its 30 tasks, asks about images"),
        ("wikitext", {}, "measures the perplexity of whole texts"),
        ("mmlu", {}, r"train_examples: lm_eval:mmlu has no training split \(it has none for mmlu_abstract_algebra, .*"),
        ("boolq", {"options": {"training_spit": "x"}}, "no option 'training_spit'; did you mean training_split"),
        ("", {}, "has no task ''; `lm-eval ls tasks` shows all"),
        ("boolq", {"columns": {"prompt": "question"}}, "columns: has no effect with source lm_eval:boolq"),
        ("boolq", {"options": {"training_split": 3}}, "options: training_split must be the name of a split, got 3"),
    ],
)
def test_problems(name, settings, problem):
    (found,) = problems_of(TaskConfig(f"lm_eval:{name}", **settings))
    assert re.search(problem, found)


def test_sound_configs_have_no_problems():
    assert not problems_of(TaskConfig("lm_eval:boolq"))
    assert not problems_of(TaskConfig("lm_eval:anli"))
    assert not problems_of(TaskConfig("lm_eval:mmlu", options={"training_split": "validation"}))
    assert not problems_of(TaskConfig("lm_eval:bbh_zeroshot", train_examples=0))
    (line,) = TaskConfig("lm_eval:boolq", evaluation_fraction=0.5).problems()
    assert line.startswith("evaluation_fraction: has no effect with source lm_eval:boolq")


def test_all_of_lm_eval_is_read_only_if_nothing_else_is_wrong(tmp_path, monkeypatch):
    monkeypatch.setenv("TREX_DS_CACHE", str(tmp_path))  # where no index of its names is kept yet
    monkeypatch.setattr(index, "folders", lambda: {"boolq": "super_glue/boolq"})
    config = TaskConfig("lm_eval:bolq", options={"training_spit": "x"})
    (problem,) = config.problems()
    assert problem.startswith("options: lm_eval: has no option 'training_spit'")
    assert "did you mean boolq?" in config.library_problems()[0]


def test_training_split_by_name(mirror, tmp_path):
    rows = [
        {"question": f"q {i}? ", "subject": "anatomy", "choices": ["a", "b", "c", "d"], "answer": i} for i in range(4)
    ]
    splits = {"test": rows, "validation": rows[:2], "dev": rows[:1]}
    mirrors.write_dataset(tmp_path, "cais/mmlu", {"anatomy": splits})
    found = examples("mmlu_anatomy", tmp_path, options={"training_split": "validation"})
    assert [e.record["dataset_split"] for e in found["train"]] == ["validation"] * 2
    assert found["train"][1].prompt == (
        "The following are multiple choice questions (with answers) about anatomy.\n\n"
        "q 1?\nA. a\nB. b\nC. c\nD. d\nAnswer:"
    )
    assert found["train"][1].answer == " B"
    for split, why in {"test": "is what it is evaluated on", "train": "is not one of its splits"}.items():
        message = (
            rf"training_split '{split}' {why}; it has test, validation, dev, and validation, dev can be trained on"
        )
        with pytest.raises(ValueError, match=message):
            examples("mmlu_anatomy", tmp_path, options={"training_split": split})
    with pytest.raises(ValueError, match="set train_examples: 0 to evaluate only, or name a split to train on"):
        examples("mmlu_anatomy", tmp_path)


def test_fingerprint_changes_with_a_file_of_the_mirror(tmp_path):
    mirrors.write_mirror(tmp_path)
    config = TaskConfig("lm_eval:boolq")
    before = source_of(config, str(tmp_path)).fingerprint()
    assert source_of(config, str(tmp_path)).fingerprint() == before
    assert "lm-eval 0." in before
    mirrors.write_dataset(tmp_path, "allenai/winogrande", {"winogrande_xl": {"train": mirrors.winogrande(3)}})
    assert source_of(config, str(tmp_path)).fingerprint() == before
    file = tmp_path / "aps/super_glue/boolq/train-0.parquet"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert source_of(config, str(tmp_path)).fingerprint() != before
