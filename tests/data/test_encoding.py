from __future__ import annotations

import logging

import pytest

from tests.data.tokenizers import CHATML, NO_SYSTEM, make_tokenizer
from trex_ds.data import DataConfig, encode_example, encode_prompt, encode_training
from trex_ds.tasks import Example, Task

EXAMPLE = Example("how many letters?", "seven", "letters")


def learnt(tokenizer, encoded) -> str:
    return tokenizer.decode([label for label in encoded.labels if label != -100])


@pytest.mark.parametrize(
    ("system_prompt", "system_message"), [(None, "You are helpful"), ("", ""), ("Be brief.", "Be brief.")]
)
def test_chat_template_is_used_up_to_the_answer(system_prompt, system_message):
    tokenizer = make_tokenizer(CHATML, bos=True)
    encoded = encode_example(tokenizer, EXAMPLE, system_prompt)
    assert tokenizer.decode(encoded.input_ids) == (
        f"<|im_start|>system\n{system_message}<|im_end|>\n<|im_start|>user\nhow many letters?<|im_end|>\n"
        "<|im_start|>assistant\nseven<|im_end|>"
    )
    assert learnt(tokenizer, encoded) == "seven<|im_end|>"


@pytest.mark.parametrize(("bos", "head"), [(True, "<s>"), (False, "")])
@pytest.mark.parametrize("final_eos", [True, False])
def test_without_a_template_the_prompt_is_a_line(bos, head, final_eos):
    tokenizer = make_tokenizer(bos=bos, final_eos=final_eos)
    encoded = encode_example(tokenizer, EXAMPLE, None)
    assert tokenizer.decode(encoded.input_ids) == f"{head}how many letters?\nseven<|im_end|>"
    assert learnt(tokenizer, encoded) == "seven<|im_end|>"


@pytest.mark.parametrize("tokenizer", [make_tokenizer(CHATML), make_tokenizer(bos=True, final_eos=True)])
def test_training_continues_the_ids_that_generation_starts_from(tokenizer):
    prompt = encode_prompt(tokenizer, EXAMPLE.prompt, None)
    encoded = encode_example(tokenizer, EXAMPLE, None)
    assert encoded.input_ids[: len(prompt)] == prompt
    assert encoded.labels[: len(prompt)] == [-100] * len(prompt)
    assert encoded.labels[len(prompt) :] == encoded.input_ids[len(prompt) :]


def test_chat_ids_are_those_of_the_tokenizer_itself():
    tokenizer = make_tokenizer(CHATML)
    expected = tokenizer.apply_chat_template(
        [{"role": "user", "content": EXAMPLE.prompt}], add_generation_prompt=True, return_dict=False
    )
    assert encode_prompt(tokenizer, EXAMPLE.prompt, None) == expected


def test_system_prompt_without_a_template_is_refused():
    with pytest.raises(ValueError, match=r"data.system_prompt 'Be brief': .* has no chat template"):
        encode_prompt(make_tokenizer(), "hello", "Be brief")


def test_system_prompt_that_the_template_refuses():
    tokenizer = make_tokenizer(NO_SYSTEM)
    assert "You are helpful" in tokenizer.decode(encode_prompt(tokenizer, "hello", None))
    with pytest.raises(ValueError, match=r"no system role; set data.system_prompt to null"):
        encode_prompt(tokenizer, "hello", "Be brief")


def test_tokenizer_without_eos_is_refused():
    with pytest.raises(ValueError, match="has no eos_token"):
        encode_example(make_tokenizer(eos_token=None), EXAMPLE, None)


def make_task(name: str, *prompts: str) -> Task:
    return Task(name, [Example(p, "seven", name) for p in prompts], [Example("x" * 500, "seven", name)])


def test_long_examples_are_left_out_whole_and_counted(caplog):
    tokenizer = make_tokenizer()
    tasks = [make_task("short", "one", "two"), make_task("mixed", "z" * 100, "three", "z" * 90)]
    with caplog.at_level(logging.WARNING):
        kept, rows = encode_training(tokenizer, tasks, DataConfig(max_length=30))
    assert [[e.prompt for e in task.train] for task in kept] == [["one", "two"], ["three"]]
    assert [tokenizer.decode(row.input_ids) for row in rows] == [
        f"{prompt}\nseven<|im_end|>" for prompt in ("one", "two", "three")
    ]
    assert [task.evaluation for task in kept] == [task.evaluation for task in tasks]
    assert caplog.messages == ["task 'mixed': left out 2 of 3 training examples, longer than data.max_length 30"]


def test_max_length_counts_prompt_answer_and_eos():
    tokenizer = make_tokenizer()
    length = len(tokenizer("hello\n")["input_ids"]) + len(tokenizer("seven")["input_ids"]) + 1
    task = make_task("letters", "hello")
    assert len(encode_training(tokenizer, [task], DataConfig(max_length=length))[1]) == 1
    with pytest.raises(
        ValueError,
        match=rf"task 'letters': all 1 training examples .* {length - 1}, the shortest has {length} tokens; raise",
    ):
        encode_training(tokenizer, [task], DataConfig(max_length=length - 1))
