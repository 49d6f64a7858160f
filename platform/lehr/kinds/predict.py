"""`kind: predict`: every row of a data set through a finished run or ensemble, into Parquet files."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, NoReturn, cast

from lehr.data.sources import Source, open_split, returns_dataset
from lehr.driver import Interrupted, Kind, Running
from lehr.errors import LehrError, RunError
from lehr.formatting import format_folder, format_seconds
from lehr.job import PredictJob, to_dict
from lehr.machine import cores
from lehr.predict import Predictor, load_predictor
from lehr.predict.rows import prepare
from lehr.predict.worker import Done, Order, done_before, mark_of, predict_locally, written
from lehr.result import find
from lehr.runs import Folder, RunFolder


def check(job: PredictJob) -> None:
    """Raises JobError for what a prediction cannot have, and LehrError where there is no model or no room to write."""
    for field in ("augment", "limit", "per_class", "classes"):
        if getattr(job.data, field):
            raise job.error(f"data.{field}", "a prediction takes every image as it is; allowed: nothing")
    load_predictor(_run_of(job).folder.folder)
    if job.out:
        written(Folder.at(job.out))
    if not returns_dataset(job.data):  # those need Ray to be opened
        open_split(job.data, job.split, job.error)


def report(run: RunFolder) -> NoReturn:
    """Predictions have no page."""
    where = run.progress().get("out", "its folder")
    raise RunError(f"{run.name} is a prediction: there are no curves; its rows are in {where}")


def run(running: Running) -> None:
    """Predicts what is not predicted yet, shows how it goes, and ends with where the rows are."""
    job = cast(PredictJob, running.job)
    predictor = load_predictor(_run_of(job).folder.folder)
    if running.debug:
        _predict(running, job, predictor, ray=False)
        return
    from lehr.ray_cluster.connection import connect

    running.screen.status("starting Ray")
    with connect(job.workers.count if isinstance(job.workers.count, int) else 1, job.workers.cpus):
        _predict(running, job, predictor, ray=True)


def _run_of(job: PredictJob) -> Any:
    return find(job.run, job.storage)


def _predict(running: Running, job: PredictJob, predictor: Predictor, *, ray: bool) -> None:
    source = prepare(open_split(job.data, job.split, job.error), predictor)
    out = Folder.at(job.out) if job.out else running.run.folder.child("predictions")
    mark = mark_of(predictor.identity, to_dict(job.data), job.split, source.rows, job.members)
    order = Order(_run_of(job).folder.folder, out, source, job.members, job.batch_size, str(job.folder), mark)
    told = Told(running, source, predictor, out)
    for done in done_before(order, keep=bool(running.run.progress())):  # a run that starts over has no progress yet
        told.add(done)
    told.tell("running")
    numbers = [number for number in range(len(source.parts)) if number not in told.numbers]
    running.training = True
    for done in _parts(running, job, predictor, order, numbers, ray=ray) if numbers else ():
        told.add(done)
        running.check_lease()
        if reason := running.run.stop_requested():
            told.tell("stopped", reason)
            raise Interrupted(f"Stopped; {told.rows:,} rows are written. Go on with: {running.command}")
        told.check(job.data.skip_unreadable)
    told.check(job.data.skip_unreadable)
    told.conclude()


def _parts(
    running: Running, job: PredictJob, predictor: Predictor, order: Order, numbers: list[int], *, ray: bool
) -> Iterator[Done]:
    if not ray:
        return predict_locally(order, numbers, cores())
    from lehr.predict.ray_predict import predict_on_ray

    running.screen.status(f"starting the actors that predict {order.source.rows:,} images")
    return predict_on_ray(order, predictor.size, predictor.channels, numbers, job.workers)


class Told:
    """What is known of the parts that are done, for the screen, `progress.json` and the end."""

    def __init__(self, running: Running, source: Source, predictor: Predictor, out: Folder) -> None:
        self.running, self.source, self.predictor, self.out = running, source, predictor, out
        self.numbers: set[int] = set()
        self.unreadable: dict[int, str] = {}
        self.rows = 0
        self.began, self.shown = time.time(), 0.0
        self.rows_before: int | None = None

    def add(self, done: Done) -> None:
        if done.number in self.numbers:
            return
        self.numbers.add(done.number)
        self.rows += done.rows
        self.unreadable |= dict(done.unreadable)
        if time.time() - self.shown > 0.5:
            self.tell("running")

    def tell(self, status: str, message: str = "") -> None:
        seconds = time.time() - self.began
        facts = {"images/s": f"{self.rows / seconds:,.0f}"} if seconds > 1 else {}
        if len(self.predictor.names) > 1:
            facts = {"members": str(len(self.predictor.names)), **facts}
        if self.unreadable:
            facts["unreadable"] = str(len(self.unreadable))
        progress = {
            "status": status,
            "message": message,
            "done": self.rows / self.source.rows,
            "headline": f"{self.rows:,} of {self.source.rows:,} images predicted",
            "facts": facts,
            "table": {"columns": [], "rows": []},
            "rows": self.rows,
            "unreadable": len(self.unreadable),
            "out": self.out.uri,
            "seconds": {"total": seconds},
            "updated": time.time(),
        }
        self.shown = time.time()
        self.running.run.write_progress(progress)
        self.running.screen.progress(progress)

    def check(self, skip: float) -> None:
        """Raises LehrError, naming some, when more images are unreadable than may be."""
        if len(self.unreadable) > skip * self.source.rows:
            share = f"more than data.skip_unreadable allows ({skip:.4g} of all)"
            sentence = (
                f"data: {len(self.unreadable)} of {self.source.rows} images are unreadable, {share}: {self._bad(5)}"
            )
            self.tell("failed", sentence)
            raise LehrError(sentence)

    def _bad(self, most: int) -> str:
        some = sorted(self.unreadable.items())[:most]
        more = f" and {len(self.unreadable) - most} more" if len(self.unreadable) > most else ""
        return ", ".join(f"{self.source.name_of(row)} ({why})" for row, why in some) + more

    def conclude(self) -> None:
        """Says where the rows are. Raises LehrError should any be missing."""
        if self.rows != self.source.rows:
            raise LehrError(
                f"{self.rows} rows were written, {self.source.rows} were to be; run it again: {self.out.uri}"
            )
        if self.unreadable:
            environment = self.running.run.environment
            names = [self.source.name_of(row) for row in sorted(self.unreadable)[:1000]]
            about = {"rows": self.source.rows, "unreadable": {"count": len(self.unreadable), "names": names}}
            self.running.run.write_environment({**environment, "data": about})
        self.tell("finished", "all rows predicted")
        screen, files = self.running.screen, len(self.numbers)
        screen.close()
        if self.unreadable:
            count = len(self.unreadable)
            screen.say(f"{count} unreadable image{'s' * (count > 1)}, null in the output: {self._bad(3)}")
        files_text = f"{files} Parquet file{'s' * (files > 1)}"
        screen.say(
            f"{self.rows:,} rows in {format_seconds(time.time() - self.began)}, {files_text}: {format_folder(self.out)}"
        )


KIND = Kind(check=check, run=run, report=report, folders=("predictions",))
