"""Which values a trial gets: pure functions of the seed, the trial's number and the results so far.

Random, quasi-random and grid search do not depend on results, so they can be asked in any order at any time. TPE
depends on the results so far, so its choice for a trial is saved in the run folder as soon as it is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from lehr.data.randomness import key, uniform
from lehr.job import first_name, to_dict
from lehr.job.search import Dimension
from lehr.search.space import Space, Values, condition_holds, rounded

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

STARTUP = 10  # random trials before TPE has enough results to learn from; Optuna's own default

TrialState = Literal["running", "finished", "ended", "failed"]
"""`finished`: trained to its last epoch; `ended`: ended early by the search."""


@dataclass(frozen=True)
class PastTrial:
    """What TPE knows of an earlier trial.

    Attributes:
        values: those that applied.
        scores: after every epoch, higher is better.
    """

    values: Values
    state: TrialState
    scores: tuple[float, ...]


def drawn_values(space: Space, seed: int, number: int) -> Values:
    """The values of a trial that do not depend on the results of others, as the job's method draws them."""
    draw = quasi_random_values if space.job.method == "quasi_random" else random_values
    return draw(space, seed, number)


def random_values(space: Space, seed: int, number: int) -> Values:
    """Independent draws. A dimension's draws stay the same when another dimension is added or removed."""
    row = torch.tensor([number])
    return space.at({path: float(uniform(key(seed, f"search {first_name(path)}"), row)) for path in space.dimensions})


def quasi_random_values(space: Space, seed: int, number: int) -> Values:
    """A point of a scrambled Sobol sequence (Owen, 1998): draws without large gaps or repeated values."""
    count = max(1, len(space.dimensions))
    sobol: Any = torch.quasirandom.SobolEngine  # torch gives it no types
    engine = sobol(count, scramble=True, seed=abs(key(seed, "sobol")) % 2**31)
    point = engine.fast_forward(number).draw(1, dtype=torch.float64)[0].clamp(0, 1 - 1e-9).tolist()
    return space.at(dict(zip(space.dimensions, point, strict=False)))


def tpe_values(space: Space, seed: int, number: int, past: Sequence[PastTrial]) -> Values:
    """What Optuna's tree-structured Parzen estimator (Bergstra et al., 2011) suggests after the trials so far.

    A new sampler is built for every trial from its number and all results, so there is no state to save. Trials that
    ended early count with the epochs they have, failed ones as the worst; running ones keep other trials away.
    """
    known = [each for each in past if each.state in ("finished", "ended")]
    if len(known) < STARTUP:
        return random_values(space, seed, number)
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.TPESampler(
        seed=abs(key(seed, "tpe", number)) % 2**31, n_startup_trials=STARTUP, constant_liar=True
    )
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.add_trials([_as_optuna(space, each) for each in past])
    trial = study.ask()
    plain = [path for path, dimension in space.dimensions.items() if dimension.when is None]
    chosen = {path: _suggest(trial, path, space.dimensions[path]) for path in plain}
    job = to_dict(space.trial(chosen, "trial")[0])
    for path, dimension in space.dimensions.items():
        if dimension.when is not None and condition_holds(dimension.when, job):
            chosen[path] = _suggest(trial, path, dimension)
    rest = random_values(space, seed, number)  # also of dimensions that do not apply; `Space.trial` leaves those out
    return {path: chosen.get(path, rest[path]) for path in space.dimensions}


def _suggest(trial: Trial, path: str, dimension: Dimension) -> Any:
    if dimension.values is not None:
        return dimension.values[trial.suggest_categorical(path, list(range(len(dimension.values))))]
    low, high = dimension.ends
    if dimension.form == "int":
        return trial.suggest_int(path, int(low), int(high), step=dimension.step or 1)
    drawn = trial.suggest_float(path, low, high, log=dimension.form == "log_uniform")
    return rounded(drawn, low, high)


def distribution(dimension: Dimension) -> BaseDistribution:
    """The dimension as an Optuna distribution; listed values are represented by their index."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if (values := dimension.values) is not None:
        return CategoricalDistribution(list(range(len(values))))
    low, high = dimension.ends
    if dimension.form == "int":
        return IntDistribution(int(low), int(high), step=dimension.step or 1)
    return FloatDistribution(low, high, log=dimension.form == "log_uniform")


def to_optuna(dimension: Dimension, value: Any) -> Any:
    """A value as `distribution` represents it."""
    return dimension.values.index(value) if dimension.values is not None else value


def _as_optuna(space: Space, past: PastTrial) -> FrozenTrial:
    import optuna

    states = {"finished": "COMPLETE", "ended": "PRUNED", "failed": "PRUNED", "running": "RUNNING"}
    scores = () if past.state == "failed" else past.scores
    return optuna.trial.create_trial(
        state=optuna.trial.TrialState[states[past.state]],
        value=max(scores) if past.state == "finished" else None,
        params={path: to_optuna(space.dimensions[path], value) for path, value in past.values.items()},
        distributions={path: distribution(space.dimensions[path]) for path in past.values},
        intermediate_values={epoch + 1: max(scores[: epoch + 1]) for epoch in range(len(scores))},
    )
