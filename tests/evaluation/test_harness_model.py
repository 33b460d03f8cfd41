from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from peft import get_peft_model

from tests.adapters.test_peft import perturb
from tests.conftest import tiny_llama
from tests.data.tokenizers import CHATML, make_tokenizer
from tests.ranks import run_ranks
from trex_ds import TRexConfig
from trex_ds.evaluation.harness_model import TRexLM

CPU = torch.device("cpu")
LENGTH = 64

# Of many lengths, with shared contexts and choices of one and of several tokens, an empty context, one that
# ends in white space, and one that is longer than the model.
CONTEXTS = ["how many", "the answer is", "", "how many letters are there? ", "x" * 100 + " letters", "seven\nis"]
CONTINUATIONS = [" a", " b", " seven letters", " the answer is how", "\nno"]
PAIRS = [(context, continuation) for context in CONTEXTS for continuation in CONTINUATIONS]
PROMPTS = [
    ("how many letters", {"until": ["e", "\n\n"], "max_gen_toks": 12, "do_sample": False}),
    ("the answer is seven", {"until": ["e", "\n\n"], "max_gen_toks": 12, "do_sample": False}),
    ("y" * 90, {"until": ["e", "\n\n"], "max_gen_toks": 12, "do_sample": False}),
    ("the", {"until": "<nothing>", "max_gen_toks": 5, "temperature": 0.0}),
]


def requests(arguments) -> list[SimpleNamespace]:
    return [SimpleNamespace(args=each if isinstance(each, tuple) else (each,)) for each in arguments]


def make_model(tokenizer):
    model = tiny_llama(
        vocab_size=len(tokenizer), max_position_embeddings=LENGTH, eos_token_id=tokenizer.eos_token_id
    ).eval()
    with torch.no_grad():  # far from uniform, so that choices differ by more than rounding
        model.lm_head.weight.mul_(20)
    return model


def make_lm(batch_size: int = 4, adapted: bool = False, tokenizer=None) -> TRexLM:
    tokenizer = tokenizer or make_tokenizer(CHATML)
    model = make_model(tokenizer)
    if not adapted:
        return TRexLM(model, tokenizer, None, batch_size=batch_size, device=CPU)
    model = get_peft_model(model, TRexConfig()).eval()
    perturb(model)
    return TRexLM(model, tokenizer, scores_by_length, batch_size=batch_size, device=CPU)


def scores_by_length(contexts) -> torch.Tensor:
    """A row of its own for each text, the same in every process."""
    return torch.stack([torch.sin(torch.arange(32.0) * (1 + len(context))) for context in contexts])


def everything(batch_size: int = 4, adapted: bool = False) -> dict:
    lm = make_lm(batch_size, adapted)
    return {
        "loglikelihood": lm.loglikelihood(requests(PAIRS), disable_tqdm=True),
        "texts": lm.generate_until(requests(PROMPTS)),
    }


@pytest.mark.parametrize("bos", [False, True])
def test_equals_lm_evals_own_model(bos):
    from lm_eval.models.huggingface import HFLM

    tokenizer = make_tokenizer(CHATML, bos=bos)
    ours = make_lm(tokenizer=tokenizer)
    theirs = HFLM(ours.model, tokenizer=tokenizer, device="cpu", batch_size=4, max_length=LENGTH)
    mine = ours.loglikelihood(requests(PAIRS), disable_tqdm=True)
    expected = theirs.loglikelihood(requests(PAIRS), disable_tqdm=True)
    assert [value for value, _ in mine] == pytest.approx([value for value, _ in expected], abs=1e-4)
    assert [greedy for _, greedy in mine] == [greedy for _, greedy in expected]
    texts = ours.generate_until(requests(PROMPTS))
    assert texts == theirs.generate_until(requests(PROMPTS), disable_tqdm=True)
    assert any(texts)
    history = [{"role": "user", "content": "how"}]
    for generation in (True, False):
        assert ours.apply_chat_template(history, generation) == theirs.apply_chat_template(history, generation)


def test_the_likeliest_token_is_the_greedy_one():
    lm = make_lm()
    context = lm.tok_encode("how many")
    found = lm._loglikelihood_tokens([(("how many", ""), context, [token]) for token in range(len(lm.tokenizer))])
    values = [value for value, _ in found]
    assert [greedy for _, greedy in found] == [value == max(values) for value in values]
    assert torch.tensor(values).logsumexp(0).item() == pytest.approx(0, abs=1e-4)


def test_choices_that_differ_in_their_last_token_share_a_pass():
    lm = make_lm()
    rows = []
    lm.model.register_forward_pre_hook(lambda _, __, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True)
    lm.loglikelihood(requests([("how many", " a"), ("how many", " b"), ("how many", " c"), ("the", " a")]))
    assert sum(rows) == 2


def test_logits_are_computed_where_a_continuation_is_predicted():
    lm = make_lm()
    widths = []
    lm.model.lm_head.register_forward_pre_hook(lambda _, args: widths.append(args[0].shape[1]))
    lm.loglikelihood(requests([("how many letters are there", " a"), ("how many", " b")]))
    assert widths == [2]  # of the space and the letter


def test_results_do_not_depend_on_the_batches():
    first, second = everything(1), everything(50)
    flat = [torch.tensor(found["loglikelihood"], dtype=torch.float64) for found in (first, second)]
    torch.testing.assert_close(*flat, atol=1e-4, rtol=0)
    assert first["texts"] == second["texts"]


@pytest.mark.parametrize("adapted", [False, True])
def test_two_ranks_equal_one(tmp_path, adapted):
    one = everything(adapted=adapted)
    for found in run_ranks(2, tmp_path, everything_on_ranks, adapted):
        assert found == one


def everything_on_ranks(adapted: bool) -> dict:
    from trex_ds.launching.process_group import start_distributed

    start_distributed(1.0)
    return everything(adapted=adapted)


def test_each_context_gets_its_own_scores():
    lm = make_lm(adapted=True)
    mine = lm.loglikelihood(requests(PAIRS), disable_tqdm=True)
    for position in (0, 7, 19, 28):
        alone = lm.loglikelihood(requests([PAIRS[position]]), disable_tqdm=True)
        assert alone[0][0] == pytest.approx(mine[position][0], abs=1e-4)
    same = TRexLM(lm.model, lm.tokenizer, lambda c: scores_by_length(["x"] * len(c)), batch_size=4, device=CPU)
    others = same.loglikelihood(requests(PAIRS), disable_tqdm=True)
    assert all(abs(a[0] - b[0]) > 1e-3 for a, b in zip(mine, others, strict=True))
    asked = []
    recording = TRexLM(
        lm.model, lm.tokenizer, lambda c: asked.append(list(c)) or scores_by_length(c), batch_size=4, device=CPU
    )
    recording.loglikelihood(requests(PAIRS), disable_tqdm=True)
    assert sorted(asked[0]) == sorted(set(CONTEXTS))


def test_a_tokenizer_that_ends_texts_of_its_own_accord_scores_the_same():
    plain, ending = make_lm(), make_lm(tokenizer=make_tokenizer(CHATML, final_eos=True))
    assert ending.tokenizer.encode("how")[-1] == ending.eot_token_id
    for asked in (PAIRS, [("how<|im_end|>", "<|im_end|>")]):
        mine = plain.loglikelihood(requests(asked), disable_tqdm=True)
        assert ending.loglikelihood(requests(asked), disable_tqdm=True) == mine
    assert ending.generate_until(requests(PROMPTS)) == plain.generate_until(requests(PROMPTS))


def test_a_context_of_white_space_alone_counts_to_the_continuation():
    lm = make_lm()
    for space in (" ", "\n\n"):
        (alone,) = lm.loglikelihood(requests([("", space + "a letter")]), disable_tqdm=True)
        (asked, *_) = lm.loglikelihood(requests([(space, "a letter"), *PAIRS]), disable_tqdm=True)
        assert asked == pytest.approx(alone, abs=1e-4)


def test_contexts_that_are_cut_are_counted(caplog):
    lm = make_lm()
    lm.loglikelihood(
        requests([("how", " a"), *((c, " a") for c in ("x" * 100, "y" * 64, "z" * 62))]), disable_tqdm=True
    )
    assert (
        "2 of 4 requests have more than the 64 tokens that the model takes: contexts are cut on the left" in caplog.text
    )
    caplog.clear()
    lm.generate_until(requests(PROMPTS))
    assert "1 of 4 requests" in caplog.text
    caplog.clear()
    lm.loglikelihood(requests([("how", " a")]), disable_tqdm=True)
    assert not caplog.text


def test_what_cannot_be_asked_for():
    lm = make_lm()
    with pytest.raises(ValueError, match="asks to sample"):
        lm.generate_until(requests([("a", {"until": [], "do_sample": True, "temperature": 1.0})]))
    with pytest.raises(ValueError, match=f"up to 64 new tokens, but the model takes {LENGTH} with the context"):
        lm.generate_until(requests([("a", {"until": [], "max_gen_toks": 64})]))
    with pytest.raises(ValueError, match=r"a continuation has 0 tokens of its own, .*; it is '' after 'how'"):
        lm.loglikelihood(requests([("how", " a"), ("how", "")]), disable_tqdm=True)
    with pytest.raises(ValueError, match=r"a continuation has .* tokens of its own, and the model takes 1 to 64"):
        lm.loglikelihood(requests([("a", "zq" * 40)]), disable_tqdm=True)
    with pytest.raises(ValueError, match="1 requests measure the perplexity of whole texts, which have no prompt"):
        lm.loglikelihood_rolling(requests(["how many"]))
    assert lm.loglikelihood([], disable_tqdm=True) == []


def test_answers_end_at_every_end_of_the_model():
    lm = make_lm()
    lm.model.generation_config.eos_token_id = None
    context, settings = "how many letters", {"until": [], "max_gen_toks": 12, "do_sample": False}
    (free,) = lm.generate_until(requests([(context, settings)]))
    tokens = lm.tokenizer(free)["input_ids"]
    assert len(tokens) > 4
    for ends in (tokens[3], [0, tokens[3]]):
        lm.model.generation_config.eos_token_id = ends
        (cut,) = lm.generate_until(requests([(context, settings)]))
        assert cut == lm.tokenizer.decode(tokens[: tokens.index(tokens[3])])
