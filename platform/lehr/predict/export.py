"""A run as one file that other programs load: `torch.export` and ONNX, checked against the original on real rows.

What is exported takes pixels, uint8 [rows, channels, height, width] from 0 to 255, and gives class probabilities
float32 [rows, classes]: preprocessing and, of an ensemble, all members and their combination are inside.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lehr.errors import LehrError
from lehr.predict.predictor import Predictor

TOLERANCE = 1e-4  # of a probability; float32 summed in another order
MISSING = "ONNX needs the libraries onnx, onnxscript and onnxruntime; install them with: pip install 'lehr[onnx]'"


@dataclass(frozen=True)
class Exported:
    """A file that was written, and the largest difference of a probability to the original on the rows it was given."""

    path: Path
    difference: float


def export_torch(predictor: Predictor, pixels: Tensor, path: Path) -> Exported:
    """Writes a `torch.export` program (`torch.export.load(path).module()`) and checks it after reading it back.

    Args:
        pixels: uint8 [rows, channels, height, width], some real rows, two or more.

    Raises:
        LehrError: torch cannot export this network, or the program computes something else.
    """
    with _quiet():
        program = _program(predictor, pixels)
        torch.export.save(program, path)
        loaded = torch.export.load(path).module()
    return Exported(path, _checked(predictor, pixels, lambda batch: loaded(batch).detach().numpy(), path))


def export_onnx(predictor: Predictor, pixels: Tensor, path: Path) -> Exported:
    """Writes an ONNX model with input `pixels` and output `probabilities`, and checks it with ONNX Runtime.

    Raises:
        LehrError: the libraries are missing, the network cannot be exported, or the model computes something else.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError:
        raise LehrError(MISSING) from None
    with _quiet():
        program = _program(predictor, pixels)
        try:
            torch.onnx.export(
                program,
                (),
                path,
                input_names=["pixels"],
                output_names=["probabilities"],
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        except Exception as error:  # whatever the exporter raises for an operator it does not know
            raise LehrError(f"ONNX cannot hold this network: {str(error).strip().splitlines()[0]}") from error
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return Exported(path, _checked(predictor, pixels, lambda batch: session.run(None, {name: batch.numpy()})[0], path))


def _program(predictor: Predictor, pixels: Tensor) -> torch.export.ExportedProgram:
    rows = torch.export.Dim("rows", min=1, max=1 << 20)
    try:
        with torch.no_grad():
            return torch.export.export(predictor, (pixels,), dynamic_shapes={"pixels": {0: rows}})
    except Exception as error:  # torch.export has no error class of its own for what it cannot trace
        raise LehrError(f"torch.export cannot hold this network: {str(error).strip().splitlines()[0]}") from error


def _checked(predictor: Predictor, pixels: Tensor, exported: Callable[[Tensor], np.ndarray], path: Path) -> float:
    """The largest difference, over all rows at once, each alone, and a number that it was not exported with."""
    with torch.inference_mode():
        original = predictor(pixels).numpy()
    worst = 0.0
    for size in (len(pixels), 1, 3):
        found = np.concatenate([exported(batch) for batch in pixels.split(size)])
        worst = max(worst, float(np.abs(found - original).max()))
    if not worst <= TOLERANCE:
        path.unlink()
        what = f"computes other probabilities than the run, by up to {worst:.2g}; allowed: {TOLERANCE:g}"
        raise LehrError(f"{path.name}: what was exported {what}; it was removed")
    return worst


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporters talk a lot, in several ways, of what nobody can do anything about."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            warnings.simplefilter("ignore")
            with contextlib.redirect_stderr(io.StringIO()):
                yield
    finally:
        logging.disable(level)
