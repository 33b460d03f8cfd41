from __future__ import annotations

import dataclasses

import pytest
import torch

from tests.intuition.fakes import FakeEmbedder, planted_prompts
from trex_ds.intuition.centroids import Centroids
from trex_ds.intuition.clustering import intuition_pass
from trex_ds.intuition.embedder import EmbedderIdentity
from trex_ds.intuition.scorer import Intuition
from trex_ds.intuition.scores import IntuitionResult

PROMPTS = planted_prompts({"sums": 12, "cities": 9, "verbs": 6})


@pytest.fixture(scope="module")
def result(tmp_path_factory) -> IntuitionResult:
    folder = tmp_path_factory.mktemp("pass")
    return intuition_pass(PROMPTS, [], FakeEmbedder(), 3, folder=folder, batch_size=4, max_embeddings=99, seed=0)


@pytest.fixture
def centroids(result) -> Centroids:
    return result.centroids


def test_the_saved_intuition_scores_as_in_training(result, tmp_path):
    result.centroids.save(tmp_path)
    intuition = Intuition.from_adapter(tmp_path, embedder=FakeEmbedder())
    torch.testing.assert_close(intuition(PROMPTS), result.of(PROMPTS), rtol=0, atol=1e-5)


def test_another_embedder_is_refused(centroids, tmp_path):
    centroids.save(tmp_path)
    with pytest.raises(ValueError, match="another embedder: weights 'feed', not 'beef'"):
        Intuition.from_adapter(tmp_path, embedder=FakeEmbedder(weights="beef"))


def test_an_embedder_that_is_gone_is_named(centroids, tmp_path):
    gone = EmbedderIdentity("embedded:no-such-model", "", "feed", "mean", "clustering: ", 16)
    dataclasses.replace(centroids, embedder=gone).save(tmp_path)
    with pytest.raises(ValueError, match="needs the embedder embedded:no-such-model") as caught:
        Intuition.from_adapter(tmp_path)
    assert "weights feed" in str(caught.value)
    assert "embedder=SentenceTransformerEmbedder(path, prompt='clustering: ')" in str(caught.value)
