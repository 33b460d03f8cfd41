from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from peft import get_peft_model

from tests.adapters.test_peft import perturb
from tests.conftest import tiny_llama
from tests.data.tokenizers import CHATML, GEMMA, make_tokenizer, with_control_tokens
from trex_ds import TRexConfig
from trex_ds.data.encoding import encode_prompt
from trex_ds.evaluation.config import EvaluationConfig
from trex_ds.evaluation.evaluate import evaluate
from trex_ds.evaluation.generation import Question, answer, generation_ends
from trex_ds.tasks.base import Example, exact_match

CPU = torch.device("cpu")


def length_score(example: Example, generated: str) -> float:
    return float(len(generated) % 2 == 0)


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer(CHATML)


@pytest.fixture
def model(tokenizer):
    base = tiny_llama(vocab_size=len(tokenizer), max_position_embeddings=256, eos_token_id=tokenizer.eos_token_id)
    model = get_peft_model(base, TRexConfig())
    perturb(model)
    return model


def questions_of(tokenizer, score=length_score) -> list[Question]:
    generator = torch.Generator().manual_seed(0)
    examples = [Example(f"question {'x' * (i * 5 % 17)} {i}", "answer", "AB"[i % 2]) for i in range(11)]
    return [Question(e, score, encode_prompt(tokenizer, e, ""), torch.rand(32, generator=generator)) for e in examples]


def test_answers_do_not_depend_on_the_batches(model, tokenizer):
    questions = questions_of(tokenizer)
    results = [
        evaluate(model, tokenizer, questions, EvaluationConfig(batch_size=size, max_new_tokens=4), CPU, "")
        for size in (1, 4, 20)
    ]
    assert results[0] == results[1] == results[2]
    assert [item.prompt for item in results[0].items] == [q.example.prompt for q in questions]
    assert len({item.generated for item in results[0].items}) > 1


def test_base_model_is_measured_without_the_adapter(model, tokenizer):
    config = EvaluationConfig(max_new_tokens=4)
    base = evaluate(model, tokenizer, questions_of(tokenizer), config, CPU, "", use_adapter=False)
    adapted = evaluate(model, tokenizer, questions_of(tokenizer), config, CPU, "")
    assert base != adapted
    plain = model.unload()
    for item, question in zip(base.items, questions_of(tokenizer), strict=True):
        ids = torch.tensor([question.input_ids])
        out = plain.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=4, do_sample=False)
        assert tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip() == item.generated


def first_tokens(model, tokenizer, prompt: list[int], count: int) -> list[int]:
    ids = torch.tensor([prompt])
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False, use_cache=True
    )
    return out[0, len(prompt) :].tolist()


@pytest.fixture
def bare(tokenizer):
    """A model that ends nowhere of its own accord."""
    base = tiny_llama(seed=3, vocab_size=len(tokenizer), max_position_embeddings=256, eos_token_id=None)
    base.generation_config.eos_token_id = None
    return base


def test_answers_end_where_the_model_says(bare, tokenizer):
    prompts = [encode_prompt(tokenizer, Example(text, "", ""), "") for text in ("how many", "the answer", "seven")]
    free = [first_tokens(bare, tokenizer, prompt, 12) for prompt in prompts]
    assert [answer(bare, tokenizer, [p], [None], 12, CPU) for p in prompts] == [
        [tokenizer.decode(tokens, skip_special_tokens=True).strip()] for tokens in free
    ]
    ends = {free[0][5], free[1][2]}
    for given in (sorted(ends), free[1][2]):
        bare.generation_config.eos_token_id = given
        wanted = {given} if isinstance(given, int) else ends
        cut = [next((i for i, token in enumerate(tokens) if token in wanted), 12) for tokens in free]
        assert min(cut) < 12
        # In one batch, where the ones that end first are padded.
        assert answer(bare, tokenizer, prompts, [None] * 3, 12, CPU) == [
            tokenizer.decode(tokens[:end], skip_special_tokens=True).strip()
            for tokens, end in zip(free, cut, strict=True)
        ]


def test_ends_of_the_model_the_tokenizer_and_its_template_are_all_ends(bare):
    tokenizer = with_control_tokens(GEMMA, eos_token="<|endoftext|>")
    own, turn = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<end_of_turn>"])
    assert generation_ends(bare, tokenizer) == sorted([own, turn])
    for given, more in ((turn, []), (7, [7]), ([own, 5, 6], [5, 6])):
        bare.generation_config.eos_token_id = given
        assert generation_ends(bare, tokenizer) == sorted([own, turn, *more])
    without_template = make_tokenizer(eos_token="<s>")
    assert generation_ends(bare, without_template) == sorted([without_template.eos_token_id, own, 5, 6])


def test_nothing_of_the_models_configuration_but_ends_changes_an_answer(bare, tokenizer):
    prompts = [encode_prompt(tokenizer, Example(text, "", ""), "") for text in ("how many how many", "aaaa")]
    before = answer(bare, tokenizer, prompts, [None] * 2, 8, CPU)
    for name, value in {
        "repetition_penalty": 50.0,
        "no_repeat_ngram_size": 1,
        "num_beams": 4,
        "min_length": 300,
    }.items():
        setattr(bare.generation_config, name, value)
    assert answer(bare, tokenizer, prompts, [None] * 2, 8, CPU) == before
    with_penalty = [first_tokens(bare, tokenizer, prompt, 8) for prompt in prompts]
    assert [tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in with_penalty] != before


def test_an_answer_that_the_tokenizer_writes_otherwise_is_right(model, tokenizer):
    """An answer may be composed of characters in another form, or decoding may clean up its spaces."""
    (question, *_) = questions_of(tokenizer, exact_match)
    config = EvaluationConfig(max_new_tokens=4)
    (wrong,) = evaluate(model, tokenizer, [question], config, CPU, "").items
    assert wrong.generated
    assert wrong.score == 0.0
    written = replace(question, reference=wrong.generated)
    (right,) = evaluate(model, tokenizer, [written], config, CPU, "").items
    assert (right.score, right.answer, right.generated) == (1.0, "answer", wrong.generated)


def test_mode_is_restored(model, tokenizer):
    model.train()
    evaluate(model, tokenizer, questions_of(tokenizer), EvaluationConfig(max_new_tokens=1), CPU, "")
    assert model.training


def test_failing_scorer_is_an_error(model, tokenizer):
    def fail(example: Example, generated: str) -> float:
        raise ZeroDivisionError("no score")

    with pytest.raises(ZeroDivisionError, match="no score"):
        evaluate(model, tokenizer, questions_of(tokenizer, fail), EvaluationConfig(max_new_tokens=1), CPU, "")
