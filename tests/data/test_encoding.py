from __future__ import annotations

from dataclasses import replace

import pytest
from lm_eval.api.model import TemplateLM

from tests.data.tokenizers import CHATML, NO_SYSTEM, encode_example, make_tokenizer
from trex_ds.data.config import DataConfig
from trex_ds.data.encoding import encode_examples, encode_prompt
from trex_ds.tasks.base import Example

EXAMPLE = Example("how many letters?", "seven", "letters")


def learned(tokenizer, encoded) -> str:
    return tokenizer.decode([label for label in encoded.labels if label != -100])


@pytest.mark.parametrize(
    ("system_prompt", "system_message"), [(None, "You are helpful"), ("", ""), ("Be brief.", "Be brief.")]
)
def test_chat_template_is_used_up_to_the_answer(system_prompt, system_message):
    tokenizer = make_tokenizer(CHATML, bos=True)
    encoded = encode_example(tokenizer, EXAMPLE, system_prompt)
    assert tokenizer.decode(encoded.ids) == (
        f"<|im_start|>system\n{system_message}<|im_end|>\n<|im_start|>user\nhow many letters?<|im_end|>\n"
        "<|im_start|>assistant\nseven<|im_end|>"
    )
    assert learned(tokenizer, encoded) == "seven<|im_end|>"


@pytest.mark.parametrize(("bos", "head"), [(True, "<s>"), (False, "")])
@pytest.mark.parametrize("final_eos", [True, False])
def test_without_a_template_the_prompt_is_a_line(bos, head, final_eos):
    tokenizer = make_tokenizer(bos=bos, final_eos=final_eos)
    encoded = encode_example(tokenizer, EXAMPLE, None)
    assert tokenizer.decode(encoded.ids) == f"{head}how many letters?\nseven<|im_end|>"
    assert learned(tokenizer, encoded) == "seven<|im_end|>"


@pytest.mark.parametrize("tokenizer", [make_tokenizer(CHATML), make_tokenizer(bos=True, final_eos=True)])
def test_training_continues_the_ids_that_generation_starts_from(tokenizer):
    prompt = encode_prompt(tokenizer, EXAMPLE, None)
    encoded = encode_example(tokenizer, EXAMPLE, None)
    assert encoded.ids[: len(prompt)] == prompt
    assert encoded.labels[: len(prompt)] == [-100] * len(prompt)
    assert encoded.labels[len(prompt) :] == encoded.ids[len(prompt) :]


def test_chat_ids_are_those_of_the_tokenizer_itself():
    tokenizer = make_tokenizer(CHATML)
    expected = tokenizer.apply_chat_template(
        [{"role": "user", "content": EXAMPLE.prompt}], add_generation_prompt=True, return_dict=False
    )
    assert encode_prompt(tokenizer, EXAMPLE, None) == expected


def test_system_prompt_without_a_template_is_refused():
    with pytest.raises(ValueError, match=r"data.system_prompt 'Be brief': .* has no chat template"):
        encode_prompt(make_tokenizer(), EXAMPLE, "Be brief")


def test_system_prompt_that_the_template_refuses():
    tokenizer = make_tokenizer(NO_SYSTEM)
    assert "You are helpful" in tokenizer.decode(encode_prompt(tokenizer, EXAMPLE, None))
    with pytest.raises(ValueError, match=r"no system role; set data.system_prompt to null"):
        encode_prompt(tokenizer, EXAMPLE, "Be brief")


def test_tokenizer_without_eos_is_refused():
    with pytest.raises(ValueError, match="has no eos_token"):
        encode_example(make_tokenizer(eos_token=None), EXAMPLE, None)


HISTORY = (("user", "hello"), ("assistant", "hi"))
PLAIN = [
    Example("how many letters?", " seven", "letters", plain=True),
    Example("the answer is ", "seven", "letters", plain=True),
    Example("the answer is \n ", " seven", "letters", plain=True),
    Example("the answer is s", "even", "letters", plain=True),  # its tokens are not those of prompt and answer apart
]


def test_history_comes_before_the_prompt():
    tokenizer = make_tokenizer(CHATML)
    example = replace(EXAMPLE, history=HISTORY)
    encoded = encode_example(tokenizer, example, None)
    assert tokenizer.decode(encoded.ids) == (
        "<|im_start|>system\nYou are helpful<|im_end|>\n<|im_start|>user\nhello<|im_end|>\n"
        "<|im_start|>assistant\nhi<|im_end|>\n<|im_start|>user\nhow many letters?<|im_end|>\n"
        "<|im_start|>assistant\nseven<|im_end|>"
    )
    assert learned(tokenizer, encoded) == "seven<|im_end|>"


@pytest.mark.parametrize(("own", "expected"), [("Be kind.", "Be kind."), ("", ""), (None, "Be brief.")])
def test_system_message_of_an_example_wins(own, expected):
    tokenizer = make_tokenizer(CHATML)
    history = HISTORY if own is None else (("system", own), *HISTORY)
    ids = encode_prompt(tokenizer, replace(EXAMPLE, history=history), "Be brief.")
    text = tokenizer.decode(ids)
    assert text.startswith(f"<|im_start|>system\n{expected}<|im_end|>\n<|im_start|>user\nhello")
    assert text.count("system") == 1


def test_history_that_cannot_be_given():
    example = replace(EXAMPLE, history=(("system", "Be kind."),))
    with pytest.raises(ValueError, match=r"of task 'letters' has messages before its prompt .*Be kind.* no chat templ"):
        encode_prompt(make_tokenizer(), example, None)
    with pytest.raises(
        ValueError, match=r"of task .letters.: .*with the roles .*no system role; change or remove such"
    ):
        encode_prompt(make_tokenizer(NO_SYSTEM), example, "Be brief.")


class Harness(TemplateLM):
    """A model of lm-evaluation-harness, reduced to what encodes a pair."""

    def __init__(self, tokenizer):
        super().__init__()
        self.tokenizer = tokenizer

    def tok_encode(self, string, add_special_tokens=None, **kwargs):
        return self.tokenizer.encode(string)

    @property
    def eot_token_id(self):
        raise NotImplementedError

    def _loglikelihood_tokens(self, requests, **kwargs):
        raise NotImplementedError

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        raise NotImplementedError

    def generate_until(self, requests, disable_tqdm=False):
        raise NotImplementedError


@pytest.mark.parametrize("example", PLAIN)
@pytest.mark.parametrize("tokenizer", [make_tokenizer(), make_tokenizer(bos=True), make_tokenizer(CHATML, bos=True)])
def test_plain_examples_are_encoded_as_the_harness_scores_them(tokenizer, example):
    context, continuation = Harness(tokenizer)._encode_pair(example.prompt, example.answer)
    encoded = encode_example(tokenizer, example, "no part of a plain example")
    assert encode_prompt(tokenizer, example, None) == context
    assert encoded.ids == [*context, *continuation, tokenizer.eos_token_id]
    assert encoded.labels == [*[-100] * len(context), *continuation, tokenizer.eos_token_id]


def test_plain_text_has_one_end_however_the_tokenizer_ends_texts():
    tokenizer = make_tokenizer(bos=True, final_eos=True)
    encoded = encode_example(tokenizer, PLAIN[0], None)
    assert tokenizer.decode(encoded.ids) == "<s>how many letters? seven<|im_end|>"
    assert learned(tokenizer, encoded) == " seven<|im_end|>"


@pytest.mark.parametrize("template", [None, CHATML])
@pytest.mark.parametrize("final_eos", [True, False])
def test_batches_give_what_single_examples_give(template, final_eos):
    tokenizer = make_tokenizer(template, bos=True, final_eos=final_eos)
    examples = [EXAMPLE, *PLAIN, Example("the answer?", "how many\n", "letters")]
    if template is not None:
        examples.append(replace(EXAMPLE, history=HISTORY))
    assert encode_examples(tokenizer, examples, None) == [encode_example(tokenizer, e, None) for e in examples]
    assert encode_examples(tokenizer, [], None) == []


def test_mirror_must_be_a_folder(tmp_path):
    assert DataConfig(mirror=str(tmp_path)).mirror_problem() is DataConfig().mirror_problem() is None
    problem = DataConfig(mirror=f"{tmp_path}/no").mirror_problem()
    assert problem.startswith(f"data.mirror: no folder '{tmp_path}/no' in ")
