from __future__ import annotations

import pytest
import torch
from peft import get_peft_model

from tests.adapters.test_peft import perturb
from tests.conftest import tiny_llama
from tests.data.tokenizers import CHATML, make_tokenizer
from trex_ds import TRexConfig
from trex_ds.data import encode_prompt
from trex_ds.evaluation import EvaluationConfig, Question, evaluate
from trex_ds.tasks import Example

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


def test_mode_is_restored(model, tokenizer):
    model.train()
    evaluate(model, tokenizer, questions_of(tokenizer), EvaluationConfig(max_new_tokens=1), CPU, "")
    assert model.training


def test_failing_scorer_is_an_error(model, tokenizer):
    def fail(example: Example, generated: str) -> float:
        raise ZeroDivisionError("no score")

    with pytest.raises(ZeroDivisionError, match="no score"):
        evaluate(model, tokenizer, questions_of(tokenizer, fail), EvaluationConfig(max_new_tokens=1), CPU, "")
