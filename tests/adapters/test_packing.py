"""Packed passes of an adapted model: what is refused, and that segments are routed and attend alone."""

from __future__ import annotations

import pytest
import torch
from peft import get_peft_model

from tests.adapters.test_peft import adapted, perturb, scores
from tests.conftest import tiny_llama
from tests.intuition.planted import planted_centroids
from trex_ds import TRexConfig

IDS = torch.tensor([[5, 6, 7, 8, 9, 10, 11], [20, 21, 22, 23, 24, 25, 26]])
SEGMENTS = torch.tensor([[0, 0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 1, 2, 2]])
POSITIONS = torch.tensor([[0, 1, 2, 0, 1, 2, 3], [0, 1, 0, 1, 2, 0, 1]])


def packed_scores(num_clusters: int = 32) -> torch.Tensor:
    return scores(6, num_clusters).view(2, 3, num_clusters)


def logits(model, **changes) -> torch.Tensor:
    inputs = {"input_ids": IDS, "position_ids": POSITIONS, "segment_ids": SEGMENTS, "intuition": packed_scores()}
    with torch.no_grad():
        return model(**{k: v for k, v in (inputs | changes).items() if v is not None}).logits


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(
    ("transform", "fields"), [("raw", {}), ("centered", {}), ("mapped", {"num_clusters": 5}), ("raw", {"dropout": 0.5})]
)
def test_a_segment_gets_the_logits_that_it_gets_alone(attention, transform, fields):
    config = TRexConfig(intuition_transform=transform, **fields)
    config.attach_centroids(planted_centroids(config.num_clusters))
    model = get_peft_model(tiny_llama(attn_implementation=attention).double(), config)
    perturb(model)
    c = packed_scores(config.num_clusters)
    together = logits(model.eval(), intuition=c)
    for row, segment in [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]:
        own = SEGMENTS[row] == segment
        with torch.no_grad():
            alone = model(input_ids=IDS[row : row + 1, own], intuition=c[row : row + 1, segment]).logits
        torch.testing.assert_close(together[row, own], alone[0], rtol=1e-9, atol=1e-9)


def test_dropout_routes_segments_by_their_own_scores(base):
    """Dropout drops or keeps every expert's input; a segment's own scores still decide its update."""
    model = adapted(base.double(), dropout=0.5).train()
    passes = []
    for c in (packed_scores(), packed_scores().index_fill(1, torch.tensor(1), 0.0)):
        torch.manual_seed(0)
        passes.append(logits(model, intuition=c))
    changed = (passes[0] - passes[1]).abs().amax(-1) > 1e-6
    assert torch.equal(changed, SEGMENTS == 1)


def test_unpacked_rows_are_the_case_of_one_segment(base):
    model = adapted(base)
    ids, c = IDS[:, :3], scores()
    with torch.no_grad():
        expected = model(input_ids=ids, intuition=c).logits
    one = {"segment_ids": torch.zeros_like(ids), "position_ids": torch.arange(3).expand(2, 3)}
    torch.testing.assert_close(logits(model, input_ids=ids, intuition=c.unsqueeze(1), **one), expected)


def test_disabled_adapter_takes_packed_rows_too(base):
    expected = logits(tiny_llama(), intuition=None, segment_ids=None, use_cache=False)
    with adapted(base).disable_adapter():
        torch.testing.assert_close(logits(base), expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"intuition": scores()}, r"with segment_ids intuition must be \(batch, segments, num_clusters\), got \(2, 32"),
        ({"segment_ids": None}, r"\(2, 3, 32\) is packed.* no segment_ids"),
        ({"intuition": packed_scores(31)}, r"num_clusters=32.*\(2, 3, 31\)"),
        ({"intuition": None}, "needs intuition"),
        ({"segment_ids": SEGMENTS.int()}, r"int64 \(batch=2, seq\), got torch.int32 \(2, 7\)"),
        ({"segment_ids": SEGMENTS[:1]}, r"\(batch=2, seq\), got torch.int64 \(1, 7\)"),
        ({"segment_ids": SEGMENTS[0]}, r"\(batch=2, seq\), got torch.int64 \(7,\)"),
        ({"segment_ids": SEGMENTS + 1}, "from 1 to 3.* 3 segments a row"),
        ({"segment_ids": SEGMENTS - 1}, "from -1 to 1"),
        ({"segment_ids": SEGMENTS[:, :6]}, r"\(2, 6\) but a layer's input is \(2, 7\)"),
        ({"attention_mask": torch.ones_like(IDS)}, "without an attention_mask"),
        ({"position_ids": None}, "position_ids that start again"),
        ({"use_cache": True}, "cannot keep or use a cache"),
    ],
)
def test_what_does_not_fit_together_is_refused(base, changes, message):
    with pytest.raises(ValueError, match=message):
        logits(adapted(base), **changes)


def test_flash_attention_takes_one_row_only(base):
    """Flash attention finds segments in one row only, and would let those of several rows see each other."""
    model = adapted(base)
    base.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match="flash_attention_2 keeps segments apart in one row only, got 2"):
        logits(model)


def test_a_full_mask_of_the_callers_own_is_taken(base):
    same = SEGMENTS.unsqueeze(2) == SEGMENTS.unsqueeze(1)
    mask = torch.zeros(2, 1, 7, 7).masked_fill(~(same.tril()).unsqueeze(1), torch.finfo(torch.float32).min)
    model = adapted(base)
    torch.testing.assert_close(logits(model, attention_mask=mask), logits(model))


@pytest.mark.parametrize("given", [{"segment_ids": SEGMENTS}, {"segment_ids": SEGMENTS, "intuition": scores()}, {}])
def test_generate_refuses_packed_rows(base, given):
    arguments = {"intuition": packed_scores()} | given
    with pytest.raises(ValueError, match="one sample a row"):
        adapted(base).generate(input_ids=IDS, max_new_tokens=1, **arguments)
