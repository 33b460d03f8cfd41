"""Names of special tokens in texts: taken for those tokens, or, where the recipe says so, for text."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.data import tokenizers
from tests.data.tokenizers import make_tokenizer, with_control_tokens
from tests.tasks.reading import write
from trex_ds.data.config import DataConfig
from trex_ds.data.encoding import encode_examples, encode_prompt
from trex_ds.data.tokenizing import control_tokens
from trex_ds.data.validation import validate_tasks
from trex_ds.tasks.base import Example
from trex_ds.tasks.config import TaskConfig

EXAMPLE = Example(
    "how <|im_end|> many <s>letters?",
    "se<|im_end|>ven",
    "letters",
    history=(("user", "<|im_start|>"), ("assistant", "x")),
)
TEMPLATES = {
    "chatml": (tokenizers.CHATML, "<|im_end|>"),
    "gemma": (tokenizers.GEMMA, "<|endoftext|>"),
    "llama-2": (tokenizers.LLAMA2, "<|im_end|>"),
}


@pytest.fixture(params=[False, True], ids=["bytes", "sentencepiece"])
def sentencepiece(request) -> bool:
    return request.param


@pytest.mark.parametrize("family", TEMPLATES)
def test_escaped_names_are_text(family, sentencepiece):
    template, eos = TEMPLATES[family]
    tokenizer = with_control_tokens(template, eos_token=eos, sentencepiece=sentencepiece)
    (read,) = encode_examples(tokenizer, [EXAMPLE], None)
    (escaped,) = encode_examples(tokenizer, [EXAMPLE], None, escape=True)
    # The text is the same, but special tokens are only where a conversation without such names has them.
    texts = [tokenizer.decode(row.ids) for row in (escaped, read)]
    if sentencepiece:  # which writes a space after each special token
        texts = ["".join(text.split()) for text in texts]
    assert texts[0] == texts[1]
    without = replace(EXAMPLE, prompt="how many", answer="seven", history=(("user", "y"), ("assistant", "x")))
    (other,) = encode_examples(tokenizer, [without], None)
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    found, wanted = ([i for i in row.ids if i in special] for row in (escaped, other))
    assert found == wanted
    assert [i for i in read.ids if i in special] != wanted
    prompt = encode_prompt(tokenizer, EXAMPLE, None, escape=True)
    assert escaped.ids[: len(prompt)] == prompt
    assert escaped.labels == [-100] * len(prompt) + escaped.ids[len(prompt) :]
    assert encode_examples(tokenizer, [without], None, escape=True) == [other]


def test_without_a_template_names_are_text_too(sentencepiece):
    tokenizer = make_tokenizer(bos=True, sentencepiece=sentencepiece)
    example = replace(EXAMPLE, history=())
    (escaped,) = encode_examples(tokenizer, [example], None, escape=True)
    space = " " if sentencepiece else ""  # which it writes before a text
    assert tokenizer.decode(escaped.ids) == f"<s>{space}{example.prompt}\n{example.answer}<|im_end|>"
    special = tokenizer.all_special_ids
    assert [i for i in escaped.ids if i in special] == [tokenizer.bos_token_id, tokenizer.eos_token_id]


def test_plain_examples_are_read_as_the_harness_reads_them():
    tokenizer = make_tokenizer(tokenizers.CHATML)
    plain = Example("how <|im_end|>", " seven", "letters", plain=True)
    assert encode_examples(tokenizer, [plain], None, escape=True) == encode_examples(tokenizer, [plain], None)


def test_a_text_that_ends_with_an_end_of_sequence_keeps_it():
    tokenizer = make_tokenizer(bos=True)
    plain = Example("how<|im_end|>", " seven", "letters", plain=True)
    (row,) = encode_examples(tokenizer, [plain], None)
    assert tokenizer.decode(row.ids) == "<s>how<|im_end|> seven<|im_end|>"


def test_only_special_tokens_are_control_tokens():
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["<think>"])
    assert control_tokens(tokenizer).findall("<s> <think> <|im_end|> <s") == ["<s>", "<|im_end|>"]


def test_examples_with_names_of_special_tokens_are_counted(tmp_path):
    tokenizer = make_tokenizer(tokenizers.CHATML)
    rows = [{"prompt": f"p{i}", "answer": "a" if i else "<|im_end|>"} for i in range(12)]
    rows[3]["prompt"] = "<s> and <s>"
    rows.append({"messages": [{"role": role, "content": f"{role}</s><|im_start|>"} for role in ("user", "assistant")]})
    config = TaskConfig(write(tmp_path / "mine.jsonl", rows), evaluation_examples=0)
    found = validate_tasks([config], DataConfig(), tokenizer, 32)
    assert found.tasks[0].control == 3
    (warning,) = found.warnings
    assert warning.startswith(
        "task 'mine': 3 examples have names of special tokens in their texts, such as '<|im_end|>'"
    )
    escaped = validate_tasks([config], DataConfig(escape_control_tokens=True), tokenizer, 32)
    assert (escaped.tasks[0].control, escaped.warnings) == (3, [])
