from __future__ import annotations

import pytest
from torch import nn

from trex_ds.modeling.mode import evaluation_mode


@pytest.mark.parametrize("training", [True, False])
def test_mode_is_restored_after_an_error_too(training):
    model = nn.Sequential(nn.Dropout()).train(training)
    with evaluation_mode(model):
        assert not model[0].training
    assert model[0].training == training
    with pytest.raises(OSError, match="x"), evaluation_mode(model):
        raise OSError("x")
    assert model[0].training == training
