"""Torch models converted to ONNX, which loads in a tenth of torch's time, and run by ONNX Runtime."""

from __future__ import annotations

import warnings
from functools import cache
from typing import TYPE_CHECKING, Any

from dqe_resources.errors import WholeRunError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np

TOLERANCE = 1e-3
"""Largest difference from torch, in any element of any output, that a conversion may show."""

_OPSET = 20


class ConversionError(WholeRunError):
    """A converted model gives other results than the torch model."""


def convert(
    module: Any,
    inputs: Mapping[str, np.ndarray],
    outputs: Sequence[str],
    dynamic: Mapping[str, Mapping[int, str]],
    path: Path,
    probe: Mapping[str, np.ndarray],
) -> None:
    """Convert a torch module and check the result against it.

    Args:
        module: a torch module in evaluation mode that takes the inputs in order and returns the outputs.
        inputs: example arrays to trace with, by name.
        outputs: names of the outputs.
        dynamic: names of the axes that vary, by input or output name and axis.
        path: where to write.
        probe: other inputs, of other lengths along the dynamic axes, to compare on.

    Raises:
        ConversionError: an output differs from torch's by more than ``TOLERANCE``.
    """
    import numpy as np
    import torch

    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            tuple(torch.from_numpy(array) for array in inputs.values()),
            str(path),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes={name: dict(axes) for name, axes in dynamic.items()},
            opset_version=_OPSET,
            dynamo=False,
        )
        expected = module(*(torch.from_numpy(array) for array in probe.values()))
    expected = expected if isinstance(expected, tuple) else (expected,)
    found = _new_session(str(path), 0).run(list(outputs), dict(probe))
    for name, left, right in zip(outputs, found, expected, strict=True):
        difference = float(np.abs(left - right.numpy()).max())
        if not difference <= TOLERANCE:
            raise ConversionError(
                f"{path.name}: output {name} differs from torch's by {difference:.2g}, more than {TOLERANCE:g}; "
                "install the versions of torch and onnxruntime that pyproject.toml names"
            )


@cache
def session(path: Path, threads: int) -> Any:
    """A loaded model: an ``onnxruntime.InferenceSession`` on the CPU, one for each file and process.

    Args:
        path: the model.
        threads: threads that share one operator; 0 for one on each core.
    """
    return _new_session(str(path), threads)


def _new_session(path: str, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Waiting threads that spin take the cores from those that decode images, and gain nothing by it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
