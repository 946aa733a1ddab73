"""Runs a packaged ONNX network on the CPU."""

from __future__ import annotations

import numpy as np

from mmdata.errors import UserError
from mmdata.media.packaged_file import PackagedFile


class OnnxModel:
    """A network with one input and one output that counts.

    Args:
        file: the packaged weights.
        threads: that one forward pass uses.

    Raises:
        UserError: onnxruntime or the package is not installed, or its file is not the pinned one.
    """

    def __init__(self, file: PackagedFile, threads: int) -> None:
        path = file.path()
        try:
            import onnxruntime
        except ImportError:
            raise UserError(f"onnxruntime is not installed. Remedy: pip install 'mmdata[{file.extra}]'") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # other stages use the cores too
        options.log_severity_level = 3  # errors only
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """The first output for a batch, float32."""
        return np.asarray(self._session.run(None, {self._input: batch})[0], np.float32)
