"""A DeepSpeed configuration file as the plan needs it: defaults and automatic values filled in."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
from deepspeed.runtime.zero.offload_config import OffloadDeviceEnum

from trex_ds.config import ConfigError
from trex_ds.packaged import deepspeed_file, deepspeed_name

PLANNED_STAGES = (1, 2, 3)


@dataclass(frozen=True)
class ZeroSettings:
    """One way to shard."""

    file: str
    """Name as in a recipe's training.deepspeed."""
    bf16: bool
    zero: DeepSpeedZeroConfig

    @property
    def stage(self) -> int:
        """ZeRO stage: 1 shards optimizer states, 2 gradients too, 3 weights too."""
        return int(self.zero.stage)

    @property
    def weights_on(self) -> str:
        """Place of a rank's shard of the weights between uses: device, cpu or nvme."""
        return _device(self.zero.offload_param) if self.stage == 3 else "device"

    @property
    def optimizer_on(self) -> str:
        """Place of optimizer states: device, cpu or nvme."""
        return _device(self.zero.offload_optimizer)

    @property
    def offloads(self) -> bool:
        """Whether anything is offloaded."""
        return (self.weights_on, self.optimizer_on) != ("device", "device")


def read_settings(file: str, model: Any) -> ZeroSettings:
    """Read a DeepSpeed configuration; sizes that are "auto" are taken from the model, as transformers takes them.

    Raises:
        ConfigError: for a stage that is not planned, or values that DeepSpeed refuses.
    """
    config = json.loads(deepspeed_file(file).read_text(encoding="utf-8"))
    zero = dict(config.get("zero_optimization", {}))
    width = model.config.get_text_config().hidden_size
    automatic = {
        "stage3_param_persistence_threshold": 10 * width,
        "reduce_bucket_size": width**2,
        "stage3_prefetch_bucket_size": int(0.9 * width**2),
    }
    for name, value in automatic.items():
        if zero.get(name) == "auto":
            zero[name] = value
    try:
        parsed = DeepSpeedZeroConfig(**zero)
    except ValueError as error:
        raise ConfigError([f"training.deepspeed: {file}: {error}"]) from None
    if int(parsed.stage) not in PLANNED_STAGES:
        raise ConfigError([f"training.deepspeed: {file} has ZeRO stage {int(parsed.stage)}; a plan knows 1, 2 and 3"])
    return ZeroSettings(file, bool(config.get("bf16", {}).get("enabled")), parsed)


def alternatives(file: str, bf16: bool, model: Any) -> list[ZeroSettings]:
    """The settings of `file` and of its neighbors with the same type of numbers, `file` first."""
    own = deepspeed_file(file)
    others = [deepspeed_name(path) for path in sorted(own.parent.glob("*.json")) if path != own]
    found = [read_settings(file, model)]
    for other in others:
        try:
            settings = read_settings(other, model)
        except (ConfigError, ValueError):
            continue  # not what the recipe asks for, so no error of it
        if settings.bf16 == bf16:
            found.append(settings)
    return found


def _device(offload: Any) -> str:
    device = OffloadDeviceEnum.none if offload is None else OffloadDeviceEnum(offload.device)
    return "device" if device == OffloadDeviceEnum.none else device.value
