"""Linears that read the same input, whose routers can then read it with the same weights."""

from __future__ import annotations

from trex_ds.adapters.router import Router

READ_THE_SAME = (
    ("q_proj", "k_proj", "v_proj"),
    ("gate_proj", "up_proj"),
    ("query", "key", "value"),
    ("wq", "wk", "wv"),
    ("w1", "w3"),
    ("wi_0", "wi_1"),
)
"""Linears of one module that read the same tensor, by the names that transformers' models give them."""


class SharedReading:
    """The groups of one model's adapted linears, found while an adapter is injected."""

    def __init__(self) -> None:
        self._first: dict[tuple[str, int, int], Router] = {}  # by module, group and in_features
        self._shared = False

    def join(self, key: str, in_features: int, router: Router) -> None:
        """Have `router`, of the linear `key`, read with the weights of its group's first router, if it is not that."""
        module, _, name = key.rpartition(".")
        group = next((number for number, names in enumerate(READ_THE_SAME) if name in names), None)
        if group is None:
            return
        first = self._first.setdefault((module, group, in_features), router)
        if first is not router:
            router.share(first)
            self._shared = True

    def check(self, shared_by: str) -> None:
        """Refuse a model in which nothing is shared.

        Args:
            shared_by: the setting that asked for it, as "router='shared'".

        Raises:
            ValueError: naming the linears that are known.
        """
        if not self._shared:
            known = "; ".join(", ".join(names) for names in READ_THE_SAME)
            raise ValueError(
                f"{shared_by} has nothing to share in this model: none of the adapted linears are known to read the "
                f"same input ({known}); use another router"
            )
