"""T-REX as a PEFT method, on a tiny Llama."""

from __future__ import annotations

import json

import pytest
import torch
from peft import PeftModel, get_peft_model
from peft.utils import PeftType

from tests.conftest import tiny_llama
from tests.intuition.planted import planted_centroids
from trex_ds import TRexConfig
from trex_ds.adapters.layer import RoutedLinear

IDS = torch.arange(3, 3 + 12).reshape(2, 6)


def scores(batch: int = 2, num_clusters: int = 32, seed: int = 0) -> torch.Tensor:
    return torch.rand(batch, num_clusters, generator=torch.Generator().manual_seed(seed))


def adapted(base, randomize: bool = True, **fields) -> PeftModel:
    model = get_peft_model(base, TRexConfig(**fields))
    if randomize:
        perturb(model)
    return model


def perturb(model, adapter="default", seed=1) -> None:
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if ".trex_" in name and adapter in name.split("."):
            scale = 0.01 if parameter.numel() == 1 else 0.3
            parameter.data.copy_(scale * torch.randn(parameter.shape, generator=generator))


def logits(model, **kwargs) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, **kwargs).logits


def test_step_zero_equals_the_base_model(base):
    expected = logits(base)
    model = adapted(base, randomize=False)
    torch.testing.assert_close(logits(model, intuition=scores()), expected, rtol=0, atol=0)
    model = adapted(tiny_llama(), randomize=True)
    assert (logits(model, intuition=scores()) - expected).abs().max() > 1e-3


def test_parameter_names_and_shapes(base):
    model = adapted(base)
    layer = model.base_model.model.model.layers[0].self_attn.k_proj
    assert isinstance(layer, RoutedLinear)
    shapes = {name: tuple(p.shape) for name, p in layer.named_parameters() if "base_layer" not in name}
    assert shapes == {
        "trex_A.default": (4, 32),
        "trex_B.default": (16, 8),
        "trex_router.default.W_r": (32, 32),
        "trex_router.default.omega": (1,),
        "trex_router.default.gamma": (1,),
    }
    assert "lm_head" not in {name for name, m in model.named_modules() if isinstance(m, RoutedLinear)}
    trainable = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trainable
    assert all(".trex_" in name for name in trainable)


def test_layer_equals_the_formula_inside_the_model(base):
    """The layer's place in the model adds nothing to the operator: base output in, updated output out."""
    model = adapted(base.double())
    layer = model.base_model.model.model.layers[1].mlp.down_proj
    seen = {}
    layer.register_forward_hook(lambda m, args, out: seen.update(x=args[0], y=out))
    c = scores().double()
    logits(model, intuition=c)
    x, A, B, W_r = seen["x"], layer.trex_A.default, layer.trex_B.default, layer.trex_router.default.W_r
    w, gate = torch.sigmoid(100 * layer.trex_router.default.omega), torch.sigmoid(100 * layer.trex_router.default.gamma)
    expected = layer.base_layer(x)
    for b, t in [(0, 0), (1, 3), (1, 5)]:
        G = (32 * w * torch.softmax(W_r @ x[b, t], 0) + 4 * (1 - w) * c[b]).reshape(4, 8)
        update = gate * B @ (G.T @ (A @ x[b, t]))
        torch.testing.assert_close(seen["y"][b, t], expected[b, t] + update, rtol=1e-10, atol=1e-10)


def test_model_without_a_task_type_takes_intuition_too(base):
    expected = logits(adapted(tiny_llama()), intuition=scores())
    model = get_peft_model(base, TRexConfig())
    perturb(model)
    torch.testing.assert_close(logits(model, intuition=scores()), expected, rtol=0, atol=0)
    with pytest.raises(ValueError, match="needs intuition"):
        logits(model)
    assert model.generate(input_ids=IDS, intuition=scores(), max_new_tokens=2).shape == (2, 8)
    with model.disable_adapter():
        torch.testing.assert_close(logits(model), logits(tiny_llama()), rtol=0, atol=0)


def test_unloaded_base_model_is_as_before(base):
    expected = logits(base)
    unloaded = adapted(base).unload()
    assert unloaded is base
    torch.testing.assert_close(logits(unloaded), expected, rtol=0, atol=0)


def test_missing_or_misshapen_intuition_is_refused(base):
    model = adapted(base)
    with pytest.raises(ValueError, match=r"intuition=\(batch, num_clusters\).*from_adapter"):
        logits(model)
    logits(model, intuition=scores())
    with pytest.raises(ValueError, match="needs intuition"):  # nor may the previous pass's value be used
        logits(model)
    with pytest.raises(ValueError, match=r"num_clusters=32.*\(2, 31\)"):
        logits(model, intuition=scores(num_clusters=31))
    with pytest.raises(ValueError, match=r"3 rows.*batch of 2"):
        logits(model, intuition=scores(batch=3))
    with pytest.raises(ValueError, match="needs intuition"):
        model.generate(input_ids=IDS, max_new_tokens=2)


def test_samples_are_routed_by_their_own_scores(base):
    model = adapted(base)
    together = logits(model, intuition=scores())
    swapped = logits(model, intuition=scores().flip(0))
    assert (together - swapped).abs().max() > 1e-3
    for row in range(2):
        with torch.no_grad():
            alone = model(input_ids=IDS[row : row + 1], intuition=scores()[row : row + 1]).logits
        torch.testing.assert_close(alone[0], together[row], rtol=1e-4, atol=1e-5)


def test_disable_adapter(base):
    expected = logits(base)
    model = adapted(base)
    with model.disable_adapter():
        torch.testing.assert_close(logits(model), expected, rtol=0, atol=0)
        torch.testing.assert_close(logits(model, intuition=scores()), expected, rtol=0, atol=0)
    assert (logits(model, intuition=scores()) - expected).abs().max() > 1e-3


def test_several_adapters(base):
    expected = logits(base)
    model = adapted(base)
    model.add_adapter("other", TRexConfig(num_in_experts=8, num_out_experts=4))
    perturb(model, "other", seed=2)
    first = logits(model, intuition=scores())
    model.set_adapter("other")
    second = logits(model, intuition=scores())
    assert (first - second).abs().max() > 1e-3
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {
        n for n, _ in model.named_parameters() if "other" in n.split(".")
    }
    model.set_adapter("default")
    torch.testing.assert_close(logits(model, intuition=scores()), first)
    model.base_model.set_adapter(["default", "other"])
    both = logits(model, intuition=scores())
    assert min((both - t).abs().max() for t in (first, second)) > 1e-3
    model.base_model.set_adapter("default")
    model.delete_adapter("other")
    torch.testing.assert_close(logits(model, intuition=scores()), first)
    unloaded = model.unload()
    torch.testing.assert_close(logits(unloaded), expected)


@pytest.mark.parametrize("transform", ["raw", "centered", "mapped"])
def test_save_and_load(base, tmp_path, transform):
    num_clusters = 5 if transform == "mapped" else 32
    config = TRexConfig(intuition_transform=transform, num_clusters=num_clusters, modules_to_save=["norm"])
    centroids = planted_centroids(num_clusters)
    config.attach_centroids(centroids)
    model = get_peft_model(base, config)
    perturb(model)
    model.base_model.model.model.norm.modules_to_save.default.weight.data.mul_(1.5)
    expected = logits(model, intuition=scores(num_clusters=num_clusters))
    model.save_pretrained(tmp_path)

    loaded = PeftModel.from_pretrained(tiny_llama(), str(tmp_path))
    restored = loaded.peft_config["default"]
    assert restored.peft_type == PeftType.TREX
    assert restored.intuition_transform == transform
    assert restored.centroids.fingerprint == centroids.fingerprint
    torch.testing.assert_close(restored.centroids.vectors, centroids.vectors, rtol=0, atol=0)
    torch.testing.assert_close(logits(loaded, intuition=scores(num_clusters=num_clusters)), expected, rtol=0, atol=0)


def test_second_adapter_keeps_its_own_folder_and_centroids(base, tmp_path):
    model = adapted(base)
    other = TRexConfig()
    other.attach_centroids(planted_centroids(32, seed=7))
    model.add_adapter("other", other)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(tiny_llama(), str(tmp_path))
    loaded.load_adapter(str(tmp_path / "other"), "other")
    assert loaded.peft_config["default"].centroids is None
    assert loaded.peft_config["other"].centroids.fingerprint == other.centroids.fingerprint


def test_a_missing_file_is_named(base, tmp_path):
    config = TRexConfig()
    config.attach_centroids(planted_centroids(32))
    get_peft_model(base, config).save_pretrained(tmp_path)
    (tmp_path / "centroids.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"centroids\.safetensors"):
        PeftModel.from_pretrained(tiny_llama(), str(tmp_path))


def test_swapped_centroids_are_refused(base, tmp_path):
    config = TRexConfig()
    config.attach_centroids(planted_centroids(32))
    get_peft_model(base, config).save_pretrained(tmp_path)
    planted_centroids(32, seed=3).save(tmp_path)
    with pytest.raises(ValueError, match="the adapter was made with centroids"):
        PeftModel.from_pretrained(tiny_llama(), str(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "returned"), [({"num_beams": 3}, 2), ({"num_beams": 4, "num_return_sequences": 2}, 4), ({}, 2)]
)
def test_generate_routes_each_row_as_it_does_alone(base, arguments, returned):
    model = adapted(base)
    both = model.generate(input_ids=IDS, intuition=scores(), max_new_tokens=5, do_sample=False, **arguments)
    assert both.shape[0] == returned
    per_row = returned // 2
    for row in range(2):
        alone = model.generate(
            input_ids=IDS[row : row + 1],
            intuition=scores()[row : row + 1],
            max_new_tokens=5,
            do_sample=False,
            **arguments,
        )
        width = min(alone.shape[1], both.shape[1])
        assert torch.equal(alone[:, :width], both[row * per_row : (row + 1) * per_row, :width])


def test_sampled_sequences(base):
    model = adapted(base)
    out = model.generate(input_ids=IDS, intuition=scores(), max_new_tokens=3, do_sample=True, num_return_sequences=3)
    assert out.shape[0] == 6


def test_greedy_generation_equals_argmax_of_forward(base):
    model = adapted(base)
    out = model.generate(input_ids=IDS, intuition=scores(), max_new_tokens=1, do_sample=False)
    assert torch.equal(out[:, -1], logits(model, intuition=scores())[:, -1].argmax(-1))


def loss(model, row, c):
    return model(input_ids=IDS[row : row + 1], labels=IDS[row : row + 1], intuition=c[row : row + 1]).loss


def gradients(model) -> dict[str, torch.Tensor]:
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def test_recomputation_uses_each_pass_own_scores(base):
    """Two forwards, and a bare one in between, before the backward of the first."""
    model = adapted(base.double()).train()
    c = scores().double()
    sum(loss(model, row, c) for row in range(2)).backward()
    expected = gradients(model)
    model.gradient_checkpointing_enable()
    model.enable_input_require_grads()
    losses = [loss(model, row, c) for row in range(2)]
    with model.disable_adapter(), torch.no_grad():
        model(input_ids=IDS)
    sum(losses).backward()
    found = gradients(model)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-12)


def test_checkpointing_enabled_before_injection_is_made_safe(base):
    base.gradient_checkpointing_enable()
    model = adapted(base.double()).train()
    c = scores().double()
    losses = [loss(model, row, c) for row in range(2)]
    sum(losses).backward()
    found = gradients(model)
    plain = adapted(tiny_llama().double()).train()
    sum(loss(plain, row, c) for row in range(2)).backward()
    for name, value in gradients(plain).items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-12)


def test_reentrant_checkpointing_is_refused(base):
    with pytest.raises(ValueError, match="use_reentrant"):
        adapted(base).gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": True})


def test_dropout_touches_the_experts_only(base):
    model = adapted(base.double(), dropout=0.9)
    layer = model.base_model.model.model.layers[0].mlp.up_proj
    plain = logits(model.eval(), intuition=scores())
    torch.testing.assert_close(logits(model, intuition=scores()), plain, rtol=0, atol=0)
    layer.train()
    layer.trex_A.default.data.zero_()
    x = torch.randn(2, 6, 32, dtype=torch.float64)
    model.base_model._side_input.current = model.base_model._pass(scores())
    torch.testing.assert_close(layer(x), layer.base_layer(x), rtol=0, atol=0)
    perturb(model)
    torch.manual_seed(0)
    assert (layer(x) - layer(x)).abs().max() > 1e-3


def test_mapped_starts_as_raw_and_learns(base):
    raw = adapted(base)
    expected = logits(raw, intuition=scores())
    model = adapted(tiny_llama(), randomize=False, intuition_transform="mapped")
    theirs = dict(raw.named_parameters())
    for name, parameter in model.named_parameters():
        if ".trex_" in name and not name.endswith("mapper"):
            parameter.data.copy_(theirs[name].data)
    torch.testing.assert_close(logits(model, intuition=scores()), expected)
    model(input_ids=IDS, labels=IDS, intuition=scores()).loss.backward()
    mapper = model.base_model.model.model.layers[0].mlp.up_proj.trex_router.default.mapper
    assert mapper.shape == (32, 32)
    assert mapper.grad.abs().max() > 0


@pytest.mark.parametrize("num_clusters", [3, 32, 70])
def test_any_number_of_clusters_reaches_every_pair(base, num_clusters):
    model = adapted(base, randomize=False, intuition_transform="mapped", num_clusters=num_clusters)
    mapper = model.base_model.model.model.layers[0].mlp.up_proj.trex_router.default.mapper
    assert torch.allclose(mapper.sum(1), torch.ones(32))
    assert (mapper.sum(0) > 0).all()


def test_centered_standardizes_by_the_stored_statistics(base):
    config = TRexConfig(intuition_transform="centered")
    centroids = planted_centroids(32)
    config.attach_centroids(centroids)
    model = get_peft_model(base, config)
    perturb(model)
    raw = adapted(tiny_llama())
    centered = (scores() - centroids.mean) / centroids.std
    torch.testing.assert_close(logits(model, intuition=scores()), logits(raw, intuition=centered))


def test_centered_without_statistics_is_refused(base):
    with pytest.raises(ValueError, match="attach_centroids"):
        adapted(base, intuition_transform="centered")


def test_merging_is_refused_with_the_reason(base):
    model = adapted(base)
    for method in (model.merge_and_unload, model.merge_adapter):
        with pytest.raises(NotImplementedError, match="depends on every token"):
            method()


def test_which_linears_are_adapted(base):
    model = adapted(base, exclude_modules=["down_proj"], layers_to_transform=[1])
    names = {name for name, m in model.named_modules() if isinstance(m, RoutedLinear)}
    assert len(names) == 6
    assert all("layers.1." in name and "down_proj" not in name for name in names)


def test_what_is_not_a_linear_is_refused(base):
    with pytest.raises(ValueError, match=r"embed_tokens is a Embedding.*exclude_modules"):
        adapted(base, target_modules=["embed_tokens"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_in_experts": 0}, "num_in_experts.*got 0"),
        ({"dropout": 1.0}, r"dropout.*1\.0"),
        ({"intuition_transform": "rawer"}, "raw, centered, mapped.*'rawer'"),
        ({"num_clusters": 16}, "num_clusters: is 16.*32.*mapped"),
        ({"gate_sharpness": 0}, "gate_sharpness"),
    ],
)
def test_bad_fields(fields, message):
    with pytest.raises(ValueError, match=message):
        TRexConfig(**fields)


def test_config_is_plain_json(base, tmp_path):
    TRexConfig(target_modules=["q_proj", "v_proj"]).save_pretrained(str(tmp_path))
    stored = json.loads((tmp_path / "adapter_config.json").read_text())
    assert stored["peft_type"] == "TREX"
    assert sorted(stored["target_modules"]) == ["q_proj", "v_proj"]


def test_autocast_and_float32_adapters_on_a_bfloat16_base(base):
    """PEFT keeps adapters in float32 on a bfloat16 base; their gradients must come back in float32."""
    model = adapted(base.to(torch.bfloat16)).train()
    layer = model.base_model.model.model.layers[0].mlp.up_proj
    assert layer.trex_A.default.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss(model, 0, scores()).backward()
    assert layer.trex_A.default.grad.dtype == torch.float32
    assert layer.trex_A.default.grad.abs().max() > 0
