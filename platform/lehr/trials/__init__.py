"""Trials: trainings that run side by side as children of one run. Searches, ensembles, recipes and transfers use them.

A `Study` decides which trials to train and when to end one early; `run_trials` trains them, in this process or on Ray,
and reports each outcome to the study. The children's run folders are the source of truth: a finished trial is reported
again but not trained again, and a killed one resumes from its newest checkpoint.
"""

from lehr.driver import Running
from lehr.trials.clock import Clock
from lehr.trials.dataset_cache import SharedData
from lehr.trials.local import run_locally
from lehr.trials.pace import Work
from lehr.trials.study import Each, Outcome, Study, StudyProgress, Trial, work_of
from lehr.trials.trainable import Deadline, TrialCallbacks, train_trial

__all__ = [
    "Clock",
    "Deadline",
    "Each",
    "Outcome",
    "SharedData",
    "Study",
    "StudyProgress",
    "Trial",
    "TrialCallbacks",
    "Work",
    "run_trials",
    "train_trial",
    "work_of",
]


def run_trials(running: Running, study: Study, at_most: int | None = None, shared: SharedData | None = None) -> None:
    """Runs the study's trials until it proposes no more, as many in parallel as fit.

    Args:
        at_most: the largest number of trials that can run at the same time, if the study knows it; when there are few,
            each gets more CPUs.
        shared: the images, where several studies of a job use the same ones.

    Raises:
        Interrupted: the job was asked to stop; every trial is saved, and running the job again resumes it.
    """
    if running.debug:
        run_locally(running, study, shared or SharedData())
        return
    from lehr.trials.on_ray import run_on_ray  # imports Ray, which --debug does without

    run_on_ray(running, study, shared or SharedData(), at_most)
