"""The events of a run as annotations in Grafana: start, resume, learning-rate restart, early stop, end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lehr.durations import RunLength
from lehr.errors import LehrError
from lehr.job import TrainJob, from_dict
from lehr.runs import RunFolder, steps_per_epoch

TAG = "lehr"
SNAPSHOTS = ("trials", "snapshots")
"""Where a snapshot ensemble trains the run that its snapshots come from."""
TIMEOUT_SECONDS = 5.0  # a Grafana that hangs must not delay the metrics: Ray forgets those not set for 20 s
KINDS = ("started", "resumed", "early_stop", "diverged", "finished", "stopped", "failed")
"""The kinds of a run's events that deserve a line in every chart."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Annotation:
    """A line in the charts: its time (ms since 1970), its text, and the tags to find it by."""

    time: int
    text: str
    tags: tuple[str, ...]


def to_annotations(run: str, events: list[dict[str, Any]]) -> list[Annotation]:
    """The annotations for a run's events, in their order."""
    return [
        Annotation(
            round(datetime.fromisoformat(event["time"]).timestamp() * 1000),
            f"{run}: {event['message']}",
            (TAG, event["kind"], f"run:{run}"),
        )
        for event in events
        if event["kind"] in KINDS
    ]


def cycle_starts(run: RunFolder, total_steps: int) -> list[int]:
    """The steps at which the learning rate restarts, after the first cycle; empty for a schedule of one cycle."""
    per_epoch = steps_per_epoch(run)
    job = from_dict(run.job)
    if not per_epoch or not isinstance(job, TrainJob):
        return []
    return job.schedule.cycle_ends(RunLength(per_epoch, total_steps))[:-1]


class Annotator:
    """Sends what is new in a run. If Grafana refuses, the next `poll` tries again; only the first time is logged."""

    def __init__(self, run: RunFolder, send: Callable[[Annotation], None]) -> None:
        self._run, self._send = run, send
        self._sent = {_identity(event) for event in run.events()}  # those of earlier attempts
        self._trained = _trained(run)
        self._step = self._current_step()
        self._starts: list[int] = []
        self._warned = False

    def poll(self) -> None:
        """Sends what happened since the last call."""
        try:
            for event in self._run.events():
                if _identity(event) not in self._sent:
                    for annotation in to_annotations(self._run.name, [event]):
                        self._send(annotation)
                    self._sent.add(_identity(event))
            self._send_cycles()
        except LehrError as error:
            if not self._warned:
                self._warned = True
                _LOG.warning("annotations: %s", error)

    def _current_step(self) -> int | None:
        training = self._trained.progress().training
        return training.step if training else None

    def _send_cycles(self) -> None:
        progress, before = self._trained.progress(), self._step
        if not progress.training:
            return
        step = progress.training.step
        if before is not None and step > before:
            starts = self._starts = self._starts or cycle_starts(self._trained, progress.training.total_steps)
            for number, start in enumerate(starts, 2):
                if before < start <= step:
                    text = f"{self._run.name}: the learning rate restarts, cycle {number} of {len(starts) + 1}"
                    when = round((progress.updated or 0.0) * 1000)
                    self._send(Annotation(when, text, (TAG, "learning_rate_restart", f"run:{self._run.name}")))
        self._step = step


def _trained(run: RunFolder) -> RunFolder:
    """The run whose learning rate is followed."""
    snapshots = run.job.get("kind") == "ensemble" and run.job.get("method") == "snapshot"
    return RunFolder(run.folder.child(*SNAPSHOTS)) if snapshots else run


def annotator_from(environment: Mapping[str, str], run: RunFolder) -> Annotator | None:
    """The annotator for the Grafana in the environment's variables; None where they name none, or not completely."""
    url = environment.get("LEHR_GRAFANA_URL")
    if not url:
        return None
    from lehr.monitoring.grafana import connect  # imported only where needed: it takes a moment

    try:
        grafana = connect(url, environment=environment, timeout=TIMEOUT_SECONDS)
    except LehrError as error:
        _LOG.warning("annotations: %s", error)
        return None
    return Annotator(run, lambda a: grafana.annotate(a.time, a.text, list(a.tags)))


def _identity(event: Mapping[str, Any]) -> tuple[Any, ...]:
    return event["time"], event.get("attempt"), event["kind"], event["message"]
