"""All datasets of launch/recipes/paper_tasks.yaml in small: made-up rows with the columns and types of the hub's."""

from __future__ import annotations

from pathlib import Path

from tests.tasks.mirrors import Rows, boolq, commonsense_qa, copa, multirc, winogrande, write_dataset
from trex_ds.tasks.harness.index import leaf_configs

TRAIN, EVALUATION = 6, 3


def wic(count: int) -> Rows:
    def row(i: int) -> dict:
        sentences = {"sentence1": f"A bat {i} flew.", "sentence2": "He held a bat."}
        spans = {"start1": 2, "end1": 5, "start2": 10, "end2": 13}
        return {"word": "bat", **sentences, **spans, "idx": i, "label": i % 2}

    return [row(i) for i in range(count)]


def wsc(count: int) -> Rows:
    def row(i: int) -> dict:
        spans = {"span1_index": 0, "span2_index": 4, "span1_text": "Ann", "span2_text": "she"}
        return {"text": f"Ann saw {i} before she left.", **spans, "idx": i, "label": i % 2}

    return [row(i) for i in range(count)]


def rte(count: int) -> Rows:
    return [{"premise": f"{i} dogs ran.", "hypothesis": "Dogs ran.", "idx": i, "label": i % 2} for i in range(count)]


def openbookqa(count: int) -> Rows:
    choices = {"text": ["ice", "fire", "sand", "air"], "label": list("ABCD")}
    return [
        {"id": str(i), "question_stem": f"What melts at {i} degrees", "choices": choices, "answerKey": "ABCD"[i % 4]}
        for i in range(count)
    ]


def anli(count: int, start: int) -> Rows:
    return [
        {"uid": str(i), "premise": f"{i} is odd.", "hypothesis": "It is even.", "label": i % 3, "reason": ""}
        for i in range(start, start + count)
    ]


def piqa(count: int) -> Rows:
    return [{"goal": f"Boil {i} eggs", "sol1": "Heat water.", "sol2": "Cool it.", "label": i % 2} for i in range(count)]


def siqa(count: int) -> Rows:
    answers = {"answerA": "late", "answerB": "bored", "answerC": "ill"}
    return [
        {"context": f"Al ran {i} miles.", "question": "Why?", **answers, "label": str(i % 3 + 1)} for i in range(count)
    ]


def hellaswag(count: int) -> Rows:
    def row(i: int) -> dict:
        context = {"ctx_a": f"He boils {i} [x] eggs.", "ctx_b": "he", "ctx": f"He boils {i} eggs. he"}
        more = {"split": "train", "split_type": "indomain", "source_id": f"s~{i}"}
        endings = ["pours it.", "eats it.", "sings.", "sleeps."]
        return {"ind": i, "activity_label": "Tea", **context, "endings": endings, **more, "label": str(i % 4)}

    return [row(i) for i in range(count)]


def mmlu(count: int, subject: str, start: int) -> Rows:
    choices = ["one", "two", "three", "four"]
    return [
        {"question": f"{subject}, question {i}? ", "subject": subject, "choices": choices, "answer": i % 4}
        for i in range(start, start + count)
    ]


def bbh(count: int) -> Rows:
    # Filters read options, and word_sorting's the list.
    return [
        {"input": f"Is {i} even?\nOptions:\n(A) yes\n(B) no\nList: b a", "target": ["(A)", "(B)"][i % 2]}
        for i in range(count)
    ]


def write_paper_mirror(mirror: Path) -> Path:
    """Each dataset with the configs and splits that lm-eval asks for."""
    makers = {"boolq": boolq, "multirc": multirc, "wic": wic, "wsc.fixed": wsc, "rte": rte, "copa": copa}
    datasets = {
        "aps/super_glue": {name: _splits(make) for name, make in makers.items()},
        "allenai/winogrande": {"winogrande_xl": _splits(winogrande)},
        "allenai/openbookqa": {"main": _splits(openbookqa) | {"test": openbookqa(TRAIN + EVALUATION)[TRAIN:]}},
        "baber/piqa": {"default": _splits(piqa)},
        "lighteval/siqa": {"default": _splits(siqa)},
        "tau/commonsense_qa": {"default": _splits(commonsense_qa)},
        "Rowan/hellaswag": {"default": _splits(hellaswag)},
        "facebook/anli": {
            "plain_text": {
                f"{split}_r{number}": anli(TRAIN, 100 * number + 10 * place)
                for place, split in enumerate(("train", "dev", "test"))
                for number in (1, 2, 3)
            }
        },
        "cais/mmlu": {
            config["dataset_name"]: {
                split: mmlu(1, config["dataset_name"], 10 * place)
                for place, split in enumerate(("test", "validation", "dev"))
            }
            for config in leaf_configs("mmlu").values()
        },
        "SaylorTwift/bbh": {
            config["dataset_name"]: {"test": bbh(1)} for config in leaf_configs("bbh_zeroshot").values()
        },
    }
    for name, configs in datasets.items():
        write_dataset(mirror, name, configs)
    return mirror


def _splits(make) -> dict[str, Rows]:
    """Rows to train on, and others to evaluate on."""
    rows = make(TRAIN + EVALUATION)
    return {"train": rows[:TRAIN], "validation": rows[TRAIN:]}
