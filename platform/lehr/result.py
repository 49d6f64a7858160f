"""A run as its user sees it: metrics, the best model, predictions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lehr.errors import LehrError, RunError
from lehr.runs import Folder, RunFolder, find_runs

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from torch import nn

    from lehr.predict import Predictor


class Run:
    """A run, finished or not, read from its folder on any storage.

    Attributes:
        folder: the run folder underneath, with everything that was recorded.
    """

    def __init__(self, folder: RunFolder | str | os.PathLike[str]) -> None:
        """Raises RunError when there is no run at `folder`."""
        self.folder = folder if isinstance(folder, RunFolder) else RunFolder.open(folder)

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def status(self) -> str:
        """new, running, finished, stopped, failed or interrupted."""
        return self.folder.status()

    @property
    def best(self) -> dict[str, Any]:
        """The best epoch: `metric`, `value`, `epoch` (from 1) and `step`."""
        return self.folder.progress().get("best", {})

    def metrics(self) -> pd.DataFrame:
        """One row per epoch, one column per metric; accuracies from 0 to 1, times in seconds."""
        return self.folder.epochs().to_pandas()

    def steps(self) -> pd.DataFrame:
        """One row per optimizer step: loss, learning rate, gradient norm, …"""
        return self.folder.steps().to_pandas()

    def best_model(self) -> nn.Module:
        """The network with its best weights, in evaluation mode, on the CPU.

        Raises:
            RunError: the run has no finished model, or its file is damaged; or it is an ensemble, which has several.
        """
        from lehr.predict import load_network

        if self.folder.folder.exists("ensemble.json"):
            raise RunError(f"{self.name} is an ensemble of several networks, each of a run in {self.name}/members")
        return load_network(self.folder.folder).model

    def predict(self, images: Any) -> np.ndarray:
        """Class probabilities float32 [images, classes], of all members together where the run is an ensemble.

        `run.classes` names the columns.

        Args:
            images: one image or a list of them: paths, PIL images or uint8 arrays [height, width] or
                [height, width, channels]; or one uint8 array [images, height, width, channels].

        Raises:
            RunError: the run has no finished model.
            LehrError: something in `images` is not an image.
        """
        import numpy as np

        from lehr.data.decode import as_pixels
        from lehr.predict.rows import predict

        predictor = self._predictor()
        many = images if isinstance(images, Sequence) and not isinstance(images, (str, bytes)) else None
        if isinstance(images, np.ndarray) and images.ndim == 4:
            many = list(images)
        size, channels = predictor.size, predictor.channels
        pixels = [as_pixels(image, size, channels) for image in (many if many is not None else [images])]
        stacked = np.stack(pixels) if pixels else np.empty((0, *size, channels), np.uint8)
        return predict(predictor, stacked).probabilities

    @property
    def classes(self) -> list[str]:
        """The class names, in the order of the columns of `predict`."""
        return list(self._predictor().classes)

    def trained(self) -> RunFolder:
        """The run of one training behind this one: itself, or the first member of an ensemble."""
        members = self.folder.children("members")
        return members[0] if members else self.folder

    def _predictor(self) -> Predictor:
        from lehr.predict import load_predictor

        return load_predictor(self.folder.folder)

    def __repr__(self) -> str:
        return f"Run({self.folder.folder.uri!r}, {self.status})"


def find(name: str, storage: str) -> Run:
    """The run of this name in the storage, or at this path or URI.

    Raises:
        RunError: there is none; the sentence names those that look alike.
    """
    from difflib import get_close_matches

    name = name.removeprefix("run:")
    if "://" in name or Path(name).joinpath("job.yaml").is_file():
        return Run(name)
    try:
        folder = Folder.at(storage).child(*name.split("/"))
        if folder.exists("job.yaml"):
            return Run(RunFolder.open(folder))
    except LehrError:
        raise
    except ValueError as error:
        raise RunError(f'"{name}" is not the name of a run: {error}') from None
    known = [run.name for run in find_runs(storage)]
    alike = get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(alike)}?" if alike else f"it holds {', '.join(known[:8]) or 'no runs'}"
    raise RunError(f'no run "{name}" in {storage}; {hint}')
