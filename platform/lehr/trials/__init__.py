"""Trainings side by side, as children of one run: what searches, ensembles, recipes and transfers are made of.

A `Study` says what is trained and when a trial has shown enough; `run_trials` trains it, in this process or on Ray, and
tells the study how each trial ended. The truth is in the children's run folders: a trial that is finished there is told
to the study again and not trained again, one that was killed goes on from its newest checkpoint.
"""

from lehr.driver import Running
from lehr.trials.local import run_locally
from lehr.trials.study import Each, Outcome, Study, Trial
from lehr.trials.trainable import TrialCallbacks, train_trial

__all__ = ["Each", "Outcome", "Study", "Trial", "TrialCallbacks", "run_trials", "train_trial"]


def run_trials(running: Running, study: Study, at_most: int | None = None) -> None:
    """Runs the study's trials until it has no more to ask, as many side by side as there is room for.

    Args:
        at_most: how many trials there can be at the same time, where the study knows: few trials get more CPUs each.

    Raises:
        Interrupted: asked to stop; every trial is saved, and running the job again goes on.
    """
    if running.debug:
        run_locally(running, study)
        return
    from lehr.trials.on_ray import run_on_ray  # Ray is imported here and not before: --debug does without

    run_on_ray(running, study, at_most)
