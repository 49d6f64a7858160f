"""What happened to a run, as annotations in Grafana: start, restart, learning-rate restart, early stop, end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lehr.durations import Clock
from lehr.errors import LehrError
from lehr.job import TrainJob, from_dict
from lehr.runs import RunFolder

TAG = "lehr"
SNAPSHOTS = ("trials", "snapshots")
"""Where an ensemble trains the run that its snapshots are taken of."""
TIMEOUT_SECONDS = 5.0  # a Grafana that hangs must not hold up the metrics: Ray forgets those not set for 20 s
KINDS = ("started", "resumed", "early_stop", "diverged", "finished", "stopped", "failed")
"""The kinds of a run's events that are worth a line in every chart."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Annotation:
    """A line in the charts: when (ms since 1970), what, and the tags to find it by."""

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


def cycle_starts(job: Mapping[str, Any], progress: Mapping[str, Any]) -> list[int]:
    """The steps at which the learning rate starts over, after the first cycle; empty where the schedule has one."""
    steps, epochs = progress.get("total_steps"), progress.get("epochs")
    if not isinstance(steps, int) or not isinstance(epochs, int):
        return []
    parsed = from_dict(job)
    if not isinstance(parsed, TrainJob):
        return []
    return parsed.schedule.cycle_ends(Clock(steps // epochs, steps))[:-1]


class Annotator:
    """Sends what newly happened to a run. `send` raises LehrError; then the same is tried again at the next look."""

    def __init__(self, run: RunFolder, send: Callable[[Annotation], None]) -> None:
        self._run, self._send = run, send
        self._sent = {_identity(event) for event in run.events()}  # of earlier attempts
        self._trained = _trained(run)
        self._step = self._trained.progress().get("step")
        self._told = False

    def look(self) -> None:
        try:
            for event in self._run.events():
                if _identity(event) not in self._sent:
                    for annotation in to_annotations(self._run.name, [event]):
                        self._send(annotation)
                    self._sent.add(_identity(event))
            self._cycles()
        except LehrError as error:
            if not self._told:
                self._told = True
                _LOG.warning("annotations: %s", error)

    def _cycles(self) -> None:
        progress = self._trained.progress()
        step, before = progress.get("step"), self._step
        if not isinstance(step, int):
            return
        if isinstance(before, int):
            starts = cycle_starts(self._trained.job, progress)
            for number, start in enumerate(starts, 2):
                if before < start <= step:
                    text = f"{self._run.name}: learning rate starts over, cycle {number} of {len(starts) + 1}"
                    when = round(float(progress["updated"]) * 1000)
                    self._send(Annotation(when, text, (TAG, "learning_rate_restart", f"run:{self._run.name}")))
        self._step = step


def _trained(run: RunFolder) -> RunFolder:
    """The run whose learning rate is followed."""
    taken = run.job.get("kind") == "ensemble" and run.job.get("method") == "snapshot"
    return RunFolder(run.folder.child(*SNAPSHOTS)) if taken else run


def annotator_from(environment: Mapping[str, str], run: RunFolder) -> Annotator | None:
    """The annotator for the Grafana that the environment names; None where it names none, or not fully."""
    url = environment.get("LEHR_GRAFANA_URL")
    if not url:
        return None
    from lehr.monitoring.grafana import connect  # imported only where it is used: it takes a moment

    try:
        grafana = connect(url, environment=environment, timeout=TIMEOUT_SECONDS)
    except LehrError as error:
        _LOG.warning("annotations: %s", error)
        return None
    return Annotator(run, lambda a: grafana.annotate(a.time, a.text, list(a.tags)))


def _identity(event: Mapping[str, Any]) -> tuple[Any, ...]:
    return event["time"], event.get("attempt"), event["kind"], event["message"]
