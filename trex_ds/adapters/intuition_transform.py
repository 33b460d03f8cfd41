"""p(c): what T-REX's routing makes of a sample's intuition scores c.

    raw: c          centered: (c - mean) / deviation of the training set          mapped: M c, with an M a linear

What needs no parameters is done once a pass (`of_pass`), the learned map in each linear (`of_linear`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from trex_ds.intuition.centroids import Centroids
from trex_ds.methods.trex import IntuitionTransform


def of_pass(kind: IntuitionTransform, scores: Tensor, centroids: Centroids | None) -> Tensor:
    """The part of p(c) that all linears share, (samples, num_clusters), from raw scores of this shape."""
    if kind != "centered":
        return scores
    assert centroids is not None, "TRexConfig.check_ready"
    mean, std = (t.to(scores) for t in (centroids.mean, centroids.std))
    return (scores - mean) / std


def of_linear(shared: Tensor, mapper: Tensor | None) -> Tensor:
    """P(c), (samples, pairs): what `of_pass` returned, times the transpose of M, (pairs, N), where there is one."""
    return shared if mapper is None else shared @ mapper.to(shared.dtype).t()


def initial_map(num_pairs: int, num_clusters: int) -> Tensor:
    """M at the start, (pairs, N): the identity where N is their number; else clusters (or pairs) wrap around.

    Each pair reads the mean of the clusters assigned to it, so no random numbers are drawn and
    "mapped" starts as "raw" where both exist.
    """
    pairs = torch.arange(num_pairs).unsqueeze(1)
    clusters = torch.arange(num_clusters).unsqueeze(0)
    assigned = (clusters % num_pairs == pairs % num_clusters).float()
    return assigned / assigned.sum(dim=1, keepdim=True)


def moments(kind: IntuitionTransform, num_pairs: int, centroids: Centroids | None) -> tuple[Tensor, Tensor]:
    """Mean and variance of each value of p(c) over the training samples at the start, both (pairs,), on the CPU.

    Without intuition there are no statistics: then they are those of centered scores, whose mean is 0 and variance 1
    whatever the data.
    """
    if kind in ("centered", "none"):
        return torch.zeros(num_pairs), torch.ones(num_pairs)
    assert centroids is not None, "TRexConfig.check_ready"
    mean, variance = centroids.mean, centroids.std.square()
    if kind == "raw":
        return mean, variance
    M = initial_map(num_pairs, centroids.num_clusters)
    return M @ mean, M.square() @ variance
