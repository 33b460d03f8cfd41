from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from trex_ds.data.collator import Collator, PackedCollator
from trex_ds.data.datasets import PackedSet, TrainingSet
from trex_ds.data.encoding import Encoded
from trex_ds.data.packing import plan_rows

ROWS = [Encoded([5, 6, 7], 1), Encoded([8], 0), Encoded([3, 4], 1)]
SCORES = np.arange(6, dtype=np.float32).reshape(3, 2)


def training_set(indices: list[int]) -> TrainingSet:
    return TrainingSet(ROWS, SCORES, np.arange(3), np.array(indices))


def test_training_batches_are_padded_on_the_right():
    loader = DataLoader(training_set([1, 0, 1]), batch_size=3, collate_fn=Collator(pad_token_id=9))
    (batch,) = loader
    assert batch["input_ids"].tolist() == [[8, 9, 9], [5, 6, 7], [8, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 0, 0], [1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[8, -100, -100], [-100, 6, 7], [8, -100, -100]]
    assert batch["intuition"].tolist() == [[2, 3], [0, 1], [2, 3]]
    assert {name: tensor.dtype for name, tensor in batch.items()} == {
        "input_ids": torch.int64,
        "attention_mask": torch.int64,
        "labels": torch.int64,
        "intuition": torch.float32,
    }


def test_generation_batches_have_no_labels():
    items = [{"input_ids": row.ids, "intuition": torch.zeros(2)} for row in ROWS[:2]]
    batch = Collator(pad_token_id=9)(items)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [9, 9, 8]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]
    assert "labels" not in batch


def test_training_set_repeats_rows_without_copying_them():
    dataset = training_set([2, 0, 2])
    assert len(dataset) == 3
    assert dataset[0]["input_ids"] is dataset[2]["input_ids"] is ROWS[2].ids


def test_rows_that_share_a_text_share_its_scores():
    dataset = TrainingSet(ROWS, SCORES, np.array([2, 0, 2]), np.array([0, 1, 2]))
    assert [dataset[i]["intuition"].tolist() for i in range(3)] == [[4, 5], [0, 1], [4, 5]]


def test_scores_that_do_not_fit_the_rows_are_refused():
    with pytest.raises(ValueError, match="2 rows of scores are named for 3 rows; name one for each"):
        TrainingSet(ROWS, SCORES, np.arange(2), np.array([0]))


def items_of(*rows: Encoded) -> list[dict]:
    return [
        {"input_ids": row.ids, "labels": row.labels, "intuition": torch.full((2,), float(i))}
        for i, row in enumerate(rows)
    ]


def test_packed_rows_are_joined_items_padded_on_the_right():
    a, b, c = items_of(*ROWS)
    batch = PackedCollator(pad_token_id=9, one_row=False)([[a, b], [c]])
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8], [3, 4, 9, 9]]
    assert batch["labels"].tolist() == [[-100, 6, 7, -100], [-100, 4, -100, -100]]  # nothing predicts a first token
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0], [0, 1, 0, 0]]
    assert batch["segment_ids"].tolist() == [[0, 0, 0, 1], [0, 0, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch["intuition"].tolist() == [[[0, 0], [1, 1]], [[2, 2], [0, 0]]]
    assert {tensor.dtype for name, tensor in batch.items() if name != "intuition"} == {torch.int64}
    assert batch["intuition"].dtype == torch.float32


def test_packed_rows_become_one_without_padding():
    a, b, c = items_of(*ROWS)
    batch = PackedCollator(pad_token_id=9, one_row=True)([[a, b], [c]])
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 3, 4]]
    assert batch["labels"].tolist() == [[-100, 6, 7, -100, -100, 4]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 0, 1]]
    assert batch["segment_ids"].tolist() == [[0, 0, 0, 1, 2, 2]]
    assert batch["attention_mask"].tolist() == [[1] * 6]
    assert batch["intuition"].tolist() == [[[0, 0], [1, 1], [2, 2]]]


def test_packed_training_set_through_a_loader():
    training = training_set([0, 2, 1, 2])
    rows = PackedSet(training, plan_rows([3, 2, 1, 2], 5, seed=0))
    (batch,) = DataLoader(rows, batch_size=2, collate_fn=PackedCollator(pad_token_id=9, one_row=False))
    assert batch["attention_mask"].sum() == 8
    assert sorted(batch["input_ids"][batch["attention_mask"].bool()].tolist()) == [3, 3, 4, 4, 5, 6, 7, 8]
