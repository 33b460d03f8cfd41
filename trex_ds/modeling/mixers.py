"""Linears that their model does not call: Mamba's mixers read the weights of some, by kernels or in plain code."""

from __future__ import annotations

from torch import nn

_READ = ("x_proj", "dt_proj", "out_proj")


def read_without_a_call(parent: nn.Module) -> list[str]:
    """Names of the linears in `parent` whose weights are read past their forward, so that replacing them does nothing.

    On a GPU by kernels always; on a CPU by some architectures too.
    """
    own = {name for name, _ in (*parent.named_children(), *parent.named_parameters(recurse=False))}
    # Its convolution, and the skip past its state: no other layer has both.
    return [name for name in _READ if name in own] if {"conv1d", "D"} <= own else []
