from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from tests.intuition.planted import DIMENSION, planted_centroids
from trex_ds.adapter_folder import CENTROIDS_FILE
from trex_ds.intuition.centroids import Centroids, score_statistics


@pytest.fixture
def centroids() -> Centroids:
    return planted_centroids(5)


def test_saved_centroids_come_back_whole(centroids, tmp_path):
    path = centroids.save(tmp_path / "adapter")
    assert path == tmp_path / "adapter" / CENTROIDS_FILE
    for loaded in (Centroids.load(path), Centroids.load(path.parent)):
        for field in dataclasses.fields(Centroids):
            before, after = getattr(centroids, field.name), getattr(loaded, field.name)
            assert torch.equal(before, after) if isinstance(before, torch.Tensor) else before == after, field.name
        assert loaded.fingerprint == centroids.fingerprint
    assert [file.name for file in path.parent.iterdir()] == [CENTROIDS_FILE]


def test_equal_centroids_are_equal_files(centroids, tmp_path):
    first = centroids.save(tmp_path / "a").read_bytes()
    assert Centroids.load(tmp_path / "a").save(tmp_path / "b").read_bytes() == first


def test_fingerprint_follows_the_content_and_not_the_place_of_the_embedder(centroids):
    moved = dataclasses.replace(centroids.embedder, name="elsewhere", revision="main")
    assert dataclasses.replace(centroids, embedder=moved).fingerprint == centroids.fingerprint
    changes = {
        "vectors": centroids.vectors.roll(1),
        "mean": centroids.mean + 1e-6,
        "std": centroids.std * 2,
        "embedder": dataclasses.replace(centroids.embedder, prompt="clustering: "),
        "data_fingerprint": "1" * 64,
        "seed": 9,
        "num_fitted": 7,
    }
    assert set(changes) == {field.name for field in dataclasses.fields(Centroids)}
    prints = [dataclasses.replace(centroids, **{name: value}).fingerprint for name, value in changes.items()]
    assert len({centroids.fingerprint, *prints}) == 1 + len(changes)


def test_score_is_the_cosine(centroids):
    scores = centroids.score(centroids.vectors[[3, 0]])
    assert scores.dtype == torch.float32
    expected = torch.nn.functional.cosine_similarity(centroids.vectors[[3, 0]][:, None], centroids.vectors, dim=2)
    torch.testing.assert_close(scores, expected)
    with pytest.raises(ValueError, match=rf"\(2, 3\).*dimension {DIMENSION}"):
        centroids.score(torch.ones(2, 3))


def test_a_constant_score_has_a_deviation_to_divide_by():
    chunks = [np.float32([[0.5, 0.1]]), np.float32([[0.5, 0.3]])]
    mean, std = score_statistics(chunks, np.array([1, 1]))
    torch.testing.assert_close(mean, torch.tensor([0.5, 0.2]))
    assert 0 < std[0] < 1e-3
    assert std[1] == pytest.approx(0.1)


def test_another_embedder_is_refused_and_a_moved_one_is_not(centroids):
    centroids.check_embedder(dataclasses.replace(centroids.embedder, name="/moved", revision="abc"))
    for field, value in {"weights": "beef", "pooling": "cls", "prompt": "query: ", "dimension": 8}.items():
        with pytest.raises(ValueError, match=f"another embedder: {field} .*fit new centroids"):
            centroids.check_embedder(dataclasses.replace(centroids.embedder, **{field: value}))


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"no centroids at {tmp_path / CENTROIDS_FILE}; give"):
        Centroids.load(tmp_path)


def truncated(data: bytes) -> bytes:
    return data[:-10]


def bit_flipped(data: bytes) -> bytes:
    return data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]


def header_edited(data: bytes) -> bytes:
    return data.replace(b'\\"seed\\": 0', b'\\"seed\\": 1')


def foreign(data: bytes) -> bytes:
    from safetensors.torch import save

    return save({"vectors": torch.ones(2, 2)})


@pytest.mark.parametrize("damage", [truncated, bit_flipped, header_edited, foreign, lambda data: b""])
def test_damaged_file(centroids, tmp_path, damage):
    path = centroids.save(tmp_path)
    data = path.read_bytes()
    assert damage(data) != data
    path.write_bytes(damage(data))
    with pytest.raises(ValueError, match=rf"{path} is damaged.*copy it again"):
        Centroids.load(path)
