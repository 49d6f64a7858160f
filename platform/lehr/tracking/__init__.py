"""Trackers: a run's record, written where a team looks at its trainings.

Nothing is told to a tracker while a network trains. A process of its own (`follow`) reads what the run folder records
and writes it to the tracker, so that one that is slow, away or broken costs the training nothing; `lehr track RUN --to
mlflow` does the same afterwards, or goes on where that process ended. Values are those of the record, at its steps.
"""

from lehr.tracking.copying import track
from lehr.tracking.process import job_has_ended, tracked
from lehr.tracking.sink import TRACKERS, Sink

__all__ = ["TRACKERS", "Sink", "job_has_ended", "track", "tracked"]
