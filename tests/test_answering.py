"""What an adapter cannot be asked; tests/training/test_job.py has whole adapters answer."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.data.tokenizers import CHATML, make_tokenizer
from trex_ds import answering
from trex_ds.adapter_folder import AdapterFolder
from trex_ds.answering import Answerer
from trex_ds.tasks.forms import forms_of

SCRIPT = Path(__file__).parents[1] / "launch" / "answer.py"


def test_a_task_is_refused_by_an_adapter_that_learned_none_apart(monkeypatch, capsys, tmp_path):
    answerer = Answerer(None, None, None, None)
    with pytest.raises(ValueError, match=r"does not answer by task .* got 'sum'; leave it out"):
        answerer(["1 + 1?"], task="sum")
    monkeypatch.setattr(Answerer, "from_adapter", lambda folder, model: answerer)
    for name in ("adapter_model.safetensors", "recipe.yaml"):
        (tmp_path / name).touch()
    (tmp_path / "adapter_config.json").write_text("{}")
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--adapter", str(tmp_path), "--task", "sum", "1 + 1?"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert ended.value.code == 2
    assert "does not answer by task" in capsys.readouterr().err


@pytest.mark.parametrize("task", [None, "other"])
def test_an_adapter_by_task_wants_one_that_it_learned(task):
    with pytest.raises(ValueError, match=f"answers by task: give one of spell, sum; got {task!r}"):
        Answerer(None, None, None, None, ["spell", "sum"])(["1 + 1?"], task=task)


PLAIN, CHAT = {"source": "lm_eval:boolq", "train_examples": None}, {"source": "gym:spell_backward"}


FILE, GROUP = {"source": "file:letters.jsonl"}, {"source": "lm_eval:mmlu"}


def test_forms_of_what_is_trained_on(tmp_path):
    only_evaluated = {"source": "lm_eval:copa", "train_examples": 0}
    assert forms_of([PLAIN, CHAT, only_evaluated], True) == {"plain": ["lm_eval:boolq"], "chat": ["gym:spell_backward"]}
    assert forms_of([CHAT, only_evaluated], False) == {"line": ["gym:spell_backward"]}
    assert AdapterFolder(tmp_path).forms is None
    AdapterFolder(tmp_path).write_forms(forms_of([PLAIN], True))
    assert AdapterFolder(tmp_path).forms == {"plain": ["lm_eval:boolq"]}


@pytest.mark.parametrize(
    ("entries", "template", "settings", "plain"),
    [
        ([PLAIN], CHATML, {}, True),
        ([CHAT], CHATML, {}, False),
        ([PLAIN], None, {}, True),
        ([CHAT], None, {}, False),
        ([PLAIN], CHATML, {"form": "chat"}, False),
        ([CHAT], CHATML, {"form": "plain"}, True),
        ([PLAIN, CHAT], CHATML, {"form": "plain"}, True),
        ([PLAIN, CHAT], CHATML, {"form": "chat"}, False),
        ([PLAIN, CHAT], CHATML, {"task": "boolq"}, True),
        ([PLAIN, CHAT], CHATML, {"task": "spell_backward"}, False),
        ([PLAIN, FILE], CHATML, {"task": "letters"}, False),
        ([GROUP], CHATML, {"task": "mmlu_anatomy"}, True),
        ([GROUP, CHAT], CHATML, {"task": "spell_backward"}, False),
    ],
)
def test_prompts_are_put_as_in_training(monkeypatch, entries, template, settings, plain):
    asked = []

    def answer(model, tokenizer, ids, *_):
        asked.extend(ids)
        return [""] * len(ids)

    monkeypatch.setattr(answering, "answer", answer)
    tokenizer = make_tokenizer(template, bos=True)
    tasks = ["boolq", "spell_backward", "letters", "mmlu_anatomy"] if "task" in settings else None
    forms = forms_of(entries, template is not None)
    Answerer(SimpleNamespace(device="cpu"), tokenizer, None, None, tasks, forms)(["how many letters? "], **settings)
    system = "<|im_start|>system\nYou are helpful<|im_end|>\n"
    chat = f"{system}<|im_start|>user\nhow many letters? <|im_end|>\n<|im_start|>assistant\n"
    others = chat if template else "<s>how many letters? \n"
    assert tokenizer.decode(asked[0]) == ("<s>how many letters?" if plain else others)


def test_an_adapter_of_both_forms_has_to_be_told():
    answerer = Answerer(None, None, None, None, None, forms_of([PLAIN, CHAT], True))
    with pytest.raises(
        ValueError, match=r"\(lm_eval:boolq\) and .*\(gym:spell_backward\): say by --form plain or --form"
    ):
        answerer(["Is it?"])


def test_a_task_that_a_group_or_a_file_may_hold_has_to_be_told_too():
    answerer = Answerer(None, None, None, None, ["mmlu_anatomy", "letters"], forms_of([GROUP, FILE], True))
    for task in ("mmlu_anatomy", "letters"):
        with pytest.raises(ValueError, match="say by --form plain or --form chat"):
            answerer(["Is it?"], task=task)
