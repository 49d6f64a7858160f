"""Exporting a run to one file that other programs load, `torch.export` or ONNX; checked against the run on real rows.

The exported model maps pixels, uint8 [rows, channels, height, width] from 0 to 255, to class probabilities, float32
[rows, classes]. It includes the preprocessing and, for an ensemble, all members and their combination.
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
from lehr.extras import install
from lehr.predict.predictor import Predictor

TOLERANCE = 1e-4  # difference in probability that another order of float32 sums explains
MISSING = f"ONNX needs the libraries onnx, onnxscript and onnxruntime; install them with: {install('onnx')}"


@dataclass(frozen=True)
class Exported:
    """A file that was written, and the largest difference in probability between it and the run on the given rows."""

    path: Path
    difference: float


def export_torch(predictor: Predictor, pixels: Tensor, path: Path) -> Exported:
    """Writes a `torch.export` program, reads it back (`torch.export.load(path).module()`) and checks it.

    Args:
        pixels: uint8 [rows, channels, height, width], two or more real rows to check it on.

    Raises:
        LehrError: torch cannot export this network, or the program does not reproduce the run.
    """
    with _quiet():
        program = _program(predictor, pixels)
        torch.export.save(program, path)
        loaded = torch.export.load(path).module()
    return Exported(path, _verify(predictor, pixels, lambda batch: loaded(batch).detach().numpy(), path))


def export_onnx(predictor: Predictor, pixels: Tensor, path: Path) -> Exported:
    """Writes an ONNX model with input `pixels` and output `probabilities`, and checks it with ONNX Runtime.

    Raises:
        LehrError: libraries are missing, the network cannot be exported, or the model does not reproduce the run.
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
        except Exception as error:  # the exporter raises all sorts of errors for an operator it does not support
            raise LehrError(f"this network cannot be exported to ONNX: {str(error).strip().splitlines()[0]}") from error
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return Exported(path, _verify(predictor, pixels, lambda batch: session.run(None, {name: batch.numpy()})[0], path))


def _program(predictor: Predictor, pixels: Tensor) -> torch.export.ExportedProgram:
    rows = torch.export.Dim("rows", min=1, max=1 << 20)
    try:
        with torch.no_grad():
            return torch.export.export(predictor, (pixels,), dynamic_shapes={"pixels": {0: rows}})
    except Exception as error:  # torch.export has no error class of its own for code it cannot trace
        raise LehrError(
            f"this network cannot be exported with torch.export: {str(error).strip().splitlines()[0]}"
        ) from error


def _verify(predictor: Predictor, pixels: Tensor, exported: Callable[[Tensor], np.ndarray], path: Path) -> float:
    """The largest difference from the run, in batches of all rows, of one, and of a size it was not exported with.

    Raises LehrError, and deletes the file, if that is more than `TOLERANCE`.
    """
    with torch.inference_mode():
        original = predictor(pixels).numpy()
    worst = 0.0
    for size in (len(pixels), 1, 3):
        found = np.concatenate([exported(batch) for batch in pixels.split(size)])
        worst = max(worst, float(np.abs(found - original).max()))
    if not worst <= TOLERANCE:
        path.unlink()
        what = f"its probabilities differ from the run's by up to {worst:.2g} (allowed: {TOLERANCE:g})"
        raise LehrError(f"{path.name}: the export does not reproduce the run: {what}; the file was deleted")
    return worst


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences the exporters, which print and log much that a user can do nothing about."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), open(os.devnull, "w") as devnull, contextlib.redirect_stdout(devnull):
            warnings.simplefilter("ignore")
            with contextlib.redirect_stderr(io.StringIO()):
                yield
    finally:
        logging.disable(level)
