"""`kind: predict`: every row of a data set through a finished run or ensemble, into Parquet files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import NoReturn, TypeAlias, cast

from lehr.data.sources import Source, open_split, returns_dataset
from lehr.driver import Interrupted, Kind, Running
from lehr.errors import LehrError, RunError
from lehr.formatting import format_folder, format_seconds, stop_reason
from lehr.job import PredictJob, refuse_unused, to_dict
from lehr.machine import cores
from lehr.predict import Predictor, load_predictor
from lehr.predict.coco_results import NAME as COCO_RESULTS
from lehr.predict.coco_results import write_coco_results
from lehr.predict.mask_files import FOLDER as MASKS
from lehr.predict.mask_files import write_masks
from lehr.predict.part_files import PartResult, fingerprint_of, keep_parts, read_parts
from lehr.predict.progress import PredictionProgress
from lehr.predict.source_parts import prepare_source
from lehr.predict.worker import PredictionSpec, predict_locally
from lehr.result import find
from lehr.runs import DataFacts, Folder, Overview, Progress, RunFolder, UnreadableImages
from lehr.runs.progress import State
from lehr.training.allocation import WorkerResources, too_much
from lehr.trust import grants

SHOW_SECONDS = 0.5  # between updates of the screen and progress.json

PredictParts: TypeAlias = Callable[[PredictionSpec, Sequence[int]], Iterator[PartResult]]
"""Predicts the parts with these numbers, in any order: in this process or on Ray."""


def check(job: PredictJob) -> None:
    """Raises JobError for options that predictions do not have, LehrError if the model or the output is unusable."""
    refuse_unused(job)
    predictor = load_predictor(_folder_of(job))
    if job.out:
        read_parts(Folder.at(job.out))
    if not returns_dataset(job.data):  # a Ray Dataset can only be opened once Ray runs
        open_split(job.data, job.split, job.error, predictor.task.labels, optional=True)


def report(run: RunFolder) -> NoReturn:
    """Raises RunError: predictions have no report."""
    overview = run.progress().overview
    where = (overview and overview.out) or "its folder"
    raise RunError(f"{run.name} is a prediction, which has no report; its rows are in {where}")


def run(running: Running) -> None:
    """Predicts the parts that are missing, and ends with where the rows are."""
    job = cast(PredictJob, running.job)
    predictor = load_predictor(_folder_of(job))
    if running.debug:
        _predict(running, job, predictor, partial(predict_locally, threads=cores()))
        return
    from lehr.ray_cluster.connection import connect  # Ray is imported only when needed: --debug works without it

    running.screen.status("starting Ray")
    with connect(job.workers.count if isinstance(job.workers.count, int) else 1, job.workers.cpus) as there:
        each = WorkerResources(1, job.workers.cpus or 1.0, job.workers.gpus)
        if problem := too_much(each, there.cpus, there.gpus, there.nodes, there.limits):
            raise job.error(f"workers.{problem[0]}", problem[1])
        from lehr.predict.ray_predict import predict_on_ray

        def with_status(spec: PredictionSpec, numbers: Sequence[int]) -> Iterator[PartResult]:
            running.screen.status(f"starting the actors that predict {spec.source.rows:,} images")
            return predict_on_ray(spec, numbers, job.workers, there, running.screen.status)

        _predict(running, job, predictor, with_status)


def _folder_of(job: PredictJob) -> Folder:
    """The folder of the run that predicts."""
    return find(job.run, job.storage).record.folder


def _predict(running: Running, job: PredictJob, predictor: Predictor, predict_parts: PredictParts) -> None:
    spec = _spec(running, job, predictor)
    for note in spec.source.notes:
        running.say(note)
    progress = PredictionProgress(spec.source, job.data.skip_unreadable)
    # After --fresh there is no progress yet, and even parts of the same prediction are written again.
    resumed = running.run.progress().status != "new"
    progress.add(keep_parts(spec.out, spec.fingerprint if resumed else None, len(spec.source.parts)))
    shown = _Shown(running, progress, spec.out, len(predictor.names))
    shown.update()
    running.begin_training()
    for result in predict_parts(spec, progress.missing) if progress.missing else ():
        progress.add([result])
        shown.update_sometimes()
        running.check_lease()
        if reason := running.run.stop_requested():
            shown.update("stopped", stop_reason(reason))
            raise Interrupted(f"{running.stopped}; {progress.rows:,} rows are written. Resume with: {running.command}")
        _check_unreadable(progress)
    _check_unreadable(progress)
    if progress.rows != spec.source.rows:
        what = f"only {progress.rows:,} of {spec.source.rows:,} rows were written to {spec.out.uri}"
        raise LehrError(f"{what}; run the job again to write the rest")
    _note_unreadable(running.run, progress)
    if predictor.task.labels in ("boxes", "captions") and write_coco_results(spec.out, spec.source):
        running.say(f"COCO's tools read {COCO_RESULTS}, beside the Parquet files")
    if predictor.task.labels == "mask":
        count = write_masks(spec.out)
        running.say(f"{count:,} masks as PNG files in {MASKS}/, beside the Parquet files")
    shown.update("finished", "all rows predicted")
    shown.summarise()


def _spec(running: Running, job: PredictJob, predictor: Predictor) -> PredictionSpec:
    source = prepare_source(_rows(job, predictor), predictor)
    return PredictionSpec(
        run=_folder_of(job),
        out=Folder.at(job.out) if job.out else running.run.folder.child("predictions"),
        source=source,
        wanted=predictor.wanted,
        members=job.members,
        batch_size=job.batch_size,
        code=str(job.folder),
        fingerprint=fingerprint_of(predictor.fingerprint, to_dict(job.data), job.split, source.rows, job.members),
        grants=grants(),
    )


def _rows(job: PredictJob, predictor: Predictor) -> Source:
    """The rows to predict, with their labels where they have some of the kind that the run's task reads."""
    return open_split(job.data, job.split, job.error, predictor.task.labels, optional=True)


def _check_unreadable(progress: PredictionProgress) -> None:
    """Raises LehrError if more images are unreadable than the job allows."""
    if problem := progress.too_many_unreadable:
        raise LehrError(problem)


def _note_unreadable(run: RunFolder, progress: PredictionProgress) -> None:
    """Keeps the names of unreadable images in the run."""
    if progress.unreadable:
        names = [progress.source.name_of(row) for row in sorted(progress.unreadable)[:1000]]
        unreadable = UnreadableImages(len(progress.unreadable), tuple(names))
        run.write_environment(replace(run.environment, data=DataFacts(progress.source.rows, unreadable=unreadable)))


class _Shown:
    """Shows the progress of a prediction: on the screen, and in progress.json."""

    def __init__(self, running: Running, progress: PredictionProgress, out: Folder, members: int) -> None:
        self.running, self.progress, self.out, self.members = running, progress, out, members
        self.began = self.last = time.time()
        self.rows_before = progress.rows  # those that an earlier attempt wrote

    def update_sometimes(self) -> None:
        """Shows the progress unless it was shown just before."""
        if time.time() - self.last > SHOW_SECONDS:
            self.update()

    def update(self, status: State = "running", message: str = "") -> None:
        """Shows the progress now."""
        self.last = time.time()
        seconds, rows = self.last - self.began, self.progress.rows
        facts = {
            "members": str(self.members) if self.members > 1 else "",
            "images/s": f"{(rows - self.rows_before) / seconds:,.0f}" if seconds > 1 else "",
            "unreadable": f"{len(self.progress.unreadable):,}" if self.progress.unreadable else "",
        }
        overview = Overview(
            headline=f"{rows:,} of {self.progress.source.rows:,} images predicted",
            done=rows / self.progress.source.rows,
            facts={name: value for name, value in facts.items() if value},
            rows=rows,
            unreadable=len(self.progress.unreadable),
            out=self.out.uri,
        )
        current = Progress(
            status,
            message,
            seconds={"total": seconds},
            seconds_left=self._seconds_left(),
            updated=self.last,
            overview=overview,
        )
        self.running.run.write_progress(current)
        self.running.screen.progress(current)

    def _seconds_left(self) -> float | None:
        """An estimate, by the speed since a process was ready: before, they start. None until rows are written."""
        progress, done = self.progress, self.progress.rows - self.rows_before
        if not done or progress.ready is None:
            return None
        began = max(self.began, min(progress.ready, self.last))  # clocks of other machines may differ
        return (self.last - began) * (progress.source.rows - progress.rows) / done

    def summarise(self) -> None:
        """Ends with what was written, and where."""
        screen, progress = self.running.screen, self.progress
        screen.close()
        if count := len(progress.unreadable):
            images = f"{count} unreadable image{'s' * (count > 1)}"
            screen.say(f"{images}, null in the output: {progress.name_unreadable(3)}")
        files = f"{len(progress.parts)} Parquet file{'s' * (len(progress.parts) > 1)}"
        took = format_seconds(time.time() - self.began)
        screen.say(f"{progress.rows:,} rows in {took}, {files}: {format_folder(self.out)}")


KIND = Kind(check=check, run=run, report=report, folders=("predictions",))
