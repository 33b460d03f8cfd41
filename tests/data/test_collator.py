from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader

from trex_ds.data import Collator, Encoded, TrainingSet

ROWS = [Encoded([5, 6, 7], [-100, 6, 7]), Encoded([8], [8]), Encoded([3, 4], [-100, 4])]
SCORES = torch.arange(6, dtype=torch.float64).view(3, 2)


def test_training_batches_are_padded_on_the_left():
    loader = DataLoader(TrainingSet(ROWS, SCORES, [1, 0, 1]), batch_size=3, collate_fn=Collator(pad_token_id=9))
    (batch,) = loader
    assert batch["input_ids"].tolist() == [[9, 9, 8], [5, 6, 7], [9, 9, 8]]
    assert batch["attention_mask"].tolist() == [[0, 0, 1], [1, 1, 1], [0, 0, 1]]
    assert batch["labels"].tolist() == [[-100, -100, 8], [-100, 6, 7], [-100, -100, 8]]
    assert batch["intuition"].tolist() == [[2, 3], [0, 1], [2, 3]]
    assert {name: tensor.dtype for name, tensor in batch.items()} == {
        "input_ids": torch.int64,
        "attention_mask": torch.int64,
        "labels": torch.int64,
        "intuition": torch.float32,
    }


def test_generation_batches_have_no_labels():
    items = [{"input_ids": row.input_ids, "intuition": torch.zeros(2)} for row in ROWS[:2]]
    batch = Collator(pad_token_id=9)(items)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [9, 9, 8]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]
    assert "labels" not in batch


def test_training_set_repeats_rows_without_copying_them():
    dataset = TrainingSet(ROWS, SCORES, [2, 0, 2])
    assert len(dataset) == 3
    assert dataset[0]["input_ids"] is dataset[2]["input_ids"] is ROWS[2].input_ids


@pytest.mark.parametrize("scores", [torch.zeros(2, 4), torch.zeros(3)])
def test_scores_that_do_not_fit_the_rows_are_refused(scores):
    with pytest.raises(ValueError, match="for 3 rows; give one row of scores for each"):
        TrainingSet(ROWS, scores, [0])
