"""SHiRA: which weights are trained is a matter of values."""

from __future__ import annotations

from peft import PeftConfig

from trex_ds.adapters.hooks import Hooks, hooks


@hooks("SHIRA")
class ShiraHooks(Hooks):
    """Hooks of SHiRA."""

    def without_values(self, config: PeftConfig) -> None:
        """See `Hooks.without_values`; how many weights are trained does not depend on which."""
        config.mask_fn = None
