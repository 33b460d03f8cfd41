from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tests.intuition import worlds
from tests.intuition.fakes import FakeEmbedder, planted_prompts
from trex_ds.intuition import clustering
from trex_ds.intuition.clustering import intuition_pass, spherical_kmeans
from trex_ds.intuition.config import IntuitionConfig

SETTINGS = {"batch_size": 8, "max_embeddings": 1000, "seed": 0}
TOPICS = {"sums": 60, "cities": 50, "verbs": 40, "rivers": 30, "logic": 20, "chess": 10}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, int], dict]:
    """What each (world size, rank) got."""
    folder: Path = tmp_path_factory.mktemp("worlds")
    torch.multiprocessing.start_processes(
        worlds.run, args=(folder,), nprocs=max(worlds.WORLD_SIZES), start_method="forkserver"
    )
    pairs = [(size, rank) for size in worlds.WORLD_SIZES for rank in range(size)]
    return {(size, rank): torch.load(folder / f"{size}-{rank}.pt") for size, rank in pairs}


def test_every_rank_of_every_world_gets_the_same_bits(outcomes):
    alone = outcomes[1, 0]["fit"]
    assert alone["train"].shape == (len(worlds.TRAIN), worlds.NUM_CLUSTERS)
    assert alone["evaluation"].shape == (len(worlds.EVALUATION), worlds.NUM_CLUSTERS)
    for outcome in outcomes.values():
        assert outcome["fit"]["fingerprint"] == alone["fingerprint"]
        for name, value in alone.items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(outcome["fit"][name], value), name


def test_each_distinct_prompt_is_embedded_once_by_one_rank(outcomes):
    for size in worlds.WORLD_SIZES:
        shares = [outcomes[size, rank]["fit"]["embedded"] for rank in range(size)]
        assert sorted(text for share in shares for text in share) == sorted({*worlds.TRAIN, *worlds.EVALUATION})
        lengths = [len(share) for share in shares]
        assert max(lengths) - min(lengths) <= 2 * worlds.BATCH_SIZE  # a batch in each of the two phases


def test_no_rank_holds_more_embeddings_than_allowed(outcomes):
    assert len({*worlds.TRAIN}) > worlds.MAX_EMBEDDINGS
    for (size, rank), outcome in outcomes.items():
        bound = worlds.MAX_EMBEDDINGS if rank == 0 else max(worlds.BATCH_SIZE, worlds.NUM_CLUSTERS)
        assert outcome["fit"]["largest matrix"] == bound, (size, rank)
        assert outcome["fit"]["most alive"] <= 2 * worlds.BATCH_SIZE  # one, and one about to replace it


def test_reused_centroids_give_the_scores_of_the_fit(outcomes):
    fit = outcomes[3, 1]["fit"]
    # Other batches than in the fit, hence not to the bit.
    torch.testing.assert_close(fit["reused train"], fit["train"], rtol=0, atol=1e-5)
    torch.testing.assert_close(fit["reused evaluation"], fit["evaluation"], rtol=0, atol=1e-5)


def test_too_few_prompts_end_every_rank(outcomes):
    for outcome in outcomes.values():
        assert outcome["too few"].startswith("ValueError: 5 clusters need as many distinct training prompts")
        assert "there are 2 (of 3 in all)" in outcome["too few"]


def test_a_failing_embedder_ends_every_rank_and_names_its_own(outcomes):
    for (size, _), outcome in outcomes.items():
        assert f"failed on rank {size - 1}" in outcome["failing"]
        assert "MemoryError: out of imaginary memory" in outcome["failing"]


def test_ranks_with_other_prompts_are_refused(outcomes):
    assert outcomes[1, 0]["different"] is None
    for size, rank in [(2, 0), (2, 1), (3, 0), (3, 1), (3, 2)]:
        assert "rank 1 has other training texts than rank 0" in outcomes[size, rank]["different"]


@pytest.fixture
def run(tmp_path):
    """The pass in a folder of its own."""
    numbers = itertools.count()

    def run_pass(train, others=(), embedder=None, clusters=4, **changed):
        settings = {"folder": tmp_path / str(next(numbers)), **SETTINGS, **changed}
        return intuition_pass(train, list(others), embedder or FakeEmbedder(), clusters, **settings)

    return run_pass


def test_planted_topics_become_clusters_the_largest_first(run):
    prompts = planted_prompts(TOPICS)
    result = run(prompts, clusters=len(TOPICS))
    expected = [i for i, size in enumerate(TOPICS.values()) for _ in range(size)]
    assert result.of(prompts).argmax(1).tolist() == expected
    assert result.of([]).shape == (0, len(TOPICS))


def test_scores_are_cosines_and_statistics_count_repeats(run):
    prompts = planted_prompts(TOPICS) + ["sums once more"] * 40
    embedder = FakeEmbedder()
    result = run(prompts, ["chess only evaluated"], embedder)
    vectors = result.centroids.vectors.numpy().astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    cosines = embedder.embed(prompts).numpy().astype(np.float64) @ vectors.T
    np.testing.assert_allclose(result.of(prompts), cosines, atol=1e-5)
    np.testing.assert_allclose(result.centroids.mean, cosines.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(result.centroids.std, cosines.std(axis=0), atol=1e-5)
    assert result.centroids.num_fitted == len(set(prompts))


def test_a_text_that_was_not_seen_has_no_scores(run):
    with pytest.raises(KeyError, match="has not seen it"):
        run(planted_prompts(TOPICS)).of(["never seen"])


def test_the_order_of_the_data_does_not_matter_but_the_seed_and_the_data_do(run):
    prompts = planted_prompts(TOPICS)

    def fit(prompts: list[str], **changed: int):
        return run(prompts, **{"max_embeddings": 100, **changed}).centroids

    first, backwards = fit(prompts), fit(prompts[::-1])
    assert torch.equal(first.vectors, backwards.vectors)
    assert first.data_fingerprint == backwards.data_fingerprint
    assert first.num_fitted == 100
    assert fit(prompts, seed=1).data_fingerprint != first.data_fingerprint
    assert fit([*prompts[:-1], "new"], max_embeddings=1000).data_fingerprint != (
        fit(prompts, max_embeddings=1000).data_fingerprint
    )


@pytest.mark.parametrize("dies_after", [1, 6, 14])
def test_an_interrupted_pass_goes_on_where_it_was(run, tmp_path, monkeypatch, dies_after):
    monkeypatch.setattr(clustering, "PIECE", 24)
    prompts = planted_prompts(TOPICS)
    settings = {"max_embeddings": 100}
    whole = run(prompts, **settings)
    folder = tmp_path / "interrupted"
    with pytest.raises(RuntimeError, match="out of imaginary memory"):
        run(prompts, embedder=FakeEmbedder(fail_after=dies_after), folder=folder, **settings)
    embedder = FakeEmbedder()
    resumed = run(prompts, embedder=embedder, folder=folder, **settings)
    assert resumed.centroids.fingerprint == whole.centroids.fingerprint
    assert torch.equal(resumed.of(prompts), whole.of(prompts))
    lost = len(embedder.embedded) - (len(prompts) - 8 * dies_after)
    assert 0 <= lost < 24
    assert {file.name for file in folder.iterdir()} == {
        *("centroids.safetensors", "digests.npy", "scores.npy", "vectors.npy", "complete")
    }


def test_given_centroids_must_fit_the_embedder_and_the_number_of_clusters(run):
    prompts = planted_prompts(TOPICS)
    centroids = run(prompts).centroids
    with pytest.raises(ValueError, match="weights 'feed', not 'beef'"):
        run(prompts, embedder=FakeEmbedder(weights="beef"), centroids=centroids)
    with pytest.raises(ValueError, match="4 clusters, not 6"):
        run(prompts, clusters=6, centroids=centroids)


def test_an_embedder_that_gives_no_numbers_is_refused(run):
    class Broken(FakeEmbedder):
        def embed(self, texts):
            return super().embed(texts) * float("nan")

    with pytest.raises(RuntimeError, match="not finite values of shape"):
        run(planted_prompts(TOPICS), embedder=Broken())


def test_clusters_without_members_are_reported():
    embeddings = torch.eye(8)[:2].repeat(20, 1)
    with pytest.warns(UserWarning, match="2 of 4 clusters are empty"):
        spherical_kmeans(embeddings, 4, seed=0)


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"max_embeddings": -1}, {"seed": -1}, {"clusters": 3}])
def test_config_refuses(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        IntuitionConfig(**wrong)
