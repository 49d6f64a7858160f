"""A run as its user sees it: metrics, the best model, predictions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lehr.errors import LehrError, RunError
from lehr.runs import Folder, RunFolder, list_runs, trainings_in
from lehr.trust import Call, addresses_of, adopt, allow, calls_of, check, remember

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from PIL.Image import Image
    from torch import nn

    from lehr.job import Job
    from lehr.predict import Predictor
    from lehr.reporting.picture import Picture

    OneImage = str | Path | bytes | Image | np.ndarray

MOST_DRAWN = 12  # trainings in one picture


class Run:
    """A run, finished or not, read from its folder on any storage.

    `lehr.run` returns one; an earlier run is opened by its path or URI:

        run = lehr.Run("runs/digits-cosine")
        run.status, run.best
        run.metrics().tail()
        run.predict(["one.png", "two.png"])

    Attributes:
        record: the run folder, for everything else that was recorded: the job, events, trials.
    """

    def __init__(self, folder: RunFolder | str | os.PathLike[str], *, trust: bool = False) -> None:
        """Opens the run at a path or URI.

        Args:
            trust: let code that the run names by import path run: its model, its data source. This is remembered, for
                as long as the run names the same code with the same options.

        Raises:
            RunError: there is no run, or a newer version of lehr wrote it.
        """
        self.record = folder if isinstance(folder, RunFolder) else RunFolder.open(folder)
        if trust:
            trust_run(self.record)

    @property
    def folder(self) -> RunFolder:
        """The same as `record`."""
        return self.record

    @property
    def name(self) -> str:
        """The name of the run, which is that of its folder."""
        return self.record.name

    @property
    def status(self) -> str:
        """`new`, `running`, `finished`, `stopped`, `failed` or `interrupted`; read again at each access."""
        return self.record.status()

    @property
    def best(self) -> dict[str, Any]:
        """The best result so far: `metric`, `value`, and where it was reached: `epoch` (from 1), `step`, `trial`.

        What does not apply is left out: a training has no `trial`, and before the first epoch the dictionary is empty.
        """
        best = (self.record.outcome() or self.record.progress()).best
        known = {name: value for name, value in asdict(best).items() if value is not None}
        return known if best.value is not None else {}

    def metrics(self) -> pd.DataFrame:
        """The metrics after each epoch: one row per epoch, one column per metric.

        Of a job made of trainings, such as a search: one row per training, as `trainings` has it. Accuracies are from 0
        to 1, times in seconds.
        """
        epochs = self.record.epochs()
        return epochs.to_pandas() if epochs.num_rows or not self.trainings() else self._table_of_trainings()

    def trainings(self) -> list[Run]:
        """The trainings that a search, recipe, ensemble, transfer or folds are made of; none of a single training."""
        return [Run(each) for _, each in trainings_in(self.record)]

    def _table_of_trainings(self) -> pd.DataFrame:
        """A row for each training: its name, the fields in which their jobs differ, its state and its best value."""
        import pandas as pd

        from lehr.formatting import differing, flat

        runs = self.trainings()
        jobs = [flat(each.record.job) for each in runs]
        paths = differing(jobs)
        rows = []
        for each, job in zip(runs, jobs, strict=True):
            best, training = each.best, each.record.progress().training
            rows.append(
                {
                    "run": each.record.folder.uri.removeprefix(f"{self.record.folder.uri.rstrip('/')}/"),
                    **{path: job.get(path) for path in paths},
                    "state": each.status,
                    "epochs": training.epochs_done if training else 0,
                    "metric": best.get("metric", ""),
                    "best": best.get("value"),
                    "epoch": best.get("epoch"),
                }
            )
        return pd.DataFrame(rows)

    def curves(self) -> Picture:
        """The learning curves so far, as a picture that a notebook shows and `save` writes as PNG, SVG or HTML.

        Of a job made of trainings: those of its trainings on the same axes, the best dozen of them.

        Raises:
            RunError: nothing was recorded yet.
        """
        from lehr.curves import curves_of

        return curves_of([each.record for each in _best_first(self.trainings())[:MOST_DRAWN] or [self]])

    def steps(self) -> pd.DataFrame:
        """One row per optimizer step: loss, learning rate, gradient norm, and times in seconds."""
        return self.record.steps().to_pandas()

    def best_model(self) -> nn.Module:
        """The trained network with its best weights, in evaluation mode, on the CPU.

        It takes preprocessed images. `predict` also does the preprocessing.

        Raises:
            RunError: the run has no finished model, or its file is damaged; or the run is an ensemble, which has
                several networks.
            Untrusted: its network is code that nobody allowed; see `trust`.
        """
        from lehr.predict import EnsembleDescription, load_network

        if EnsembleDescription.exists(self.record.folder):
            inside = "folds" if self.record.job.get("kind") == "folds" else "members"
            raise RunError(f"{self.name} is an ensemble of several networks; each is a run in {self.name}/{inside}")
        return load_network(self.record.folder).model

    def predict(self, images: OneImage | Sequence[OneImage]) -> np.ndarray:
        """Class probabilities, float32 [images, classes]; of all members combined if the run is an ensemble.

        `run.classes` names the columns. Of detection float32 [images, 100, 6]: score, number of the class and sides
        x0, y0, x1, y1 in pixels of each box, the surest first; 0, -1 and 0 where there is none. Of segmentation objects
        [images], each uint8 [height, width] with the class of each pixel of that image.

        Args:
            images: one image or a list of images: paths, the bytes of encoded files, PIL images, or arrays or tensors
                [height, width], [height, width, channels] or [channels, height, width] of uint8, uint16 or floats from
                0 to 1; or one array or tensor of them, with four dimensions.

        Raises:
            RunError: the run has no finished model.
            Untrusted: its network is code that nobody allowed; see `trust`.
            LehrError: something in `images` is not an image.
        """
        import numpy as np

        from lehr.data.decode import as_pixels
        from lehr.predict.rows import predict

        several: Sequence[object] = [images]
        if isinstance(images, Sequence) and not isinstance(images, (str, bytes)):
            several = images
        elif getattr(images, "ndim", 0) == 4:  # an array or a tensor
            several = list(images)  # type: ignore[arg-type]
        predictor = self._predictor()
        wanted, sizes = predictor.wanted, None
        if wanted.letterbox:  # then what is predicted are places in the images as they were
            whole = [as_pixels(image, replace(wanted, size=None)) for image in several]
            sizes = np.array([image.shape[:2] for image in whole], np.int64).reshape(-1, 2)
            several = whole
            wanted = replace(wanted, range=None)
        pixels = [as_pixels(image, wanted) for image in several]
        stacked = np.stack(pixels) if pixels else np.empty((0, *predictor.size, predictor.channels), np.uint8)
        return predict(predictor, stacked, sizes=sizes).probabilities

    @property
    def classes(self) -> list[str]:
        """The class names, in the order of the columns of `predict`. Raises RunError if there is no finished model."""
        return list(self._predictor().classes)

    def training_run(self) -> RunFolder:
        """A training behind this run: the first member of an ensemble, the first fold, else the run itself."""
        parts = [*self.record.children("members"), *self.record.children("folds")]
        return parts[0] if parts else self.record

    def _predictor(self) -> Predictor:
        from lehr.predict import load_predictor

        return load_predictor(self.record.folder)

    def __repr__(self) -> str:
        return f"Run({self.record.folder.uri!r}, {self.status})"

    def _repr_html_(self) -> str:
        """What a notebook shows of it: its state, its curves and its verdict."""
        from lehr.notebooks import run_html

        return run_html(self.record)


def _best_first(runs: Sequence[Run]) -> list[Run]:
    """The runs of one job, those with a result first, the best of them first."""
    from lehr.job import Training, from_dict

    def rank(each: Run) -> tuple[bool, float]:
        best = each.best
        if not best:
            return True, 0.0
        job = from_dict(each.record.job)
        lower = isinstance(job, Training) and job.lower_is_better(best["metric"])
        return False, best["value"] if lower else -best["value"]

    return sorted(runs, key=rank)


def code_of(run: RunFolder) -> list[Call]:
    """The code that a run names by import path, in its job, its model, and those of its trials and members; and the
    address that its job tells how it ends.

    What is damaged names none.
    """
    from lehr.job import from_dict, to_dict
    from lehr.models.description import ModelDescription
    from lehr.runs import ModelFile

    found = []
    for each in (run, *(child for group in ("members", "trials", "folds") for child in run.children(group))):
        with suppress(LehrError):
            job = to_dict(from_dict(each.job))
            found += [*calls_of(job), *addresses_of(job)]
        with suppress(LehrError):
            found += ModelDescription.from_json(ModelFile.read(each.folder).description).calls
    return found


def trust_run(run: RunFolder) -> None:
    """Lets code that a run names run, now and in later commands of this user on this machine."""
    calls = code_of(run)
    allow(calls)
    remember(calls, Path.cwd())


DIGEST = "sha256:"
"""How `--trust` tells a digest of code, as one machine sends it to another, from a run."""


def trust_all(named: Sequence[str], storage: str) -> None:
    """Lets the code of these runs run: each by its name in the storage, by path or URI, or as `sha256:…`, a digest.

    Raises:
        RunError: there is no such run.
    """
    for name in named:
        if name.startswith(DIGEST):
            adopt([name.removeprefix(DIGEST)])
        else:
            trust_run(find(name, storage).record)


MOST_NAMED = 8  # runs that a sentence names


def find(name: str, storage: str) -> Run:
    """The run with this name in the storage, or at this path or URI.

    Raises:
        RunError: there is none; the sentence suggests runs with similar names.
    """
    from difflib import get_close_matches

    name = name.removeprefix("run:")
    if "://" in name or os.path.isfile(os.path.join(name, "job.yaml")):
        return Run(name)
    try:
        folder = Folder.at(storage).child(name)
        if folder.exists("job.yaml"):
            return Run(RunFolder.open(folder))
    except LehrError:
        raise
    except ValueError as error:
        raise RunError(f'"{name}" is not the name of a run: {error}') from None
    listing = list_runs(storage)
    for entry in listing.odd:
        if entry.name == name:
            raise RunError(f"{storage}/{entry}")
    known = [run.name for run in listing.runs]
    similar = get_close_matches(name, known, n=3)
    newest = ", ".join(reversed(known[-MOST_NAMED:])) or "no runs"
    more = f" and {len(known) - MOST_NAMED} more" if len(known) > MOST_NAMED else ""
    hint = f"did you mean {' or '.join(similar)}?" if similar else f"it holds {newest}{more}"
    raise RunError(f'no run "{name}" in {storage}; {hint}')


def stored_job(run: str, storage: str) -> Job:
    """The job of a run folder, to be run under its name in its storage.

    Raises:
        Untrusted: it names code that nobody allowed.
    """
    from lehr.formatting import format_folder
    from lehr.job import from_dict, to_dict

    found = find(run, storage).record
    # A path says nothing of who sees it; file:// says that every machine does, and `lehr check` relies on it.
    parent, _, name = (run.rstrip("/") if run.startswith("file://") else found.folder.uri).rpartition("/")
    job = from_dict({**found.job, "name": name, "storage": parent})
    check([*calls_of(to_dict(job)), *addresses_of(to_dict(job))], format_folder(found.folder))
    return job


def as_data(run: RunFolder) -> dict[str, Any]:
    """A run for programs: what `lehr show` says of it, and its job."""
    from lehr.curves import verdict

    progress = run.progress()
    return {
        "name": run.name,
        "folder": run.folder.uri,
        "status": run.status(),
        "verdict": verdict(run),
        "best": asdict(progress.best),
        "progress": progress.to_json(),
        "epochs": run.epochs().to_pylist(),
        "events": run.events(),
        "job": run.job,
    }
