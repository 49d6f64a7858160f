"""Which values a trial gets: pure functions of (seed, number of the trial, what was told so far).

Grid and random search depend on nothing that was told, so they can be asked in any order, by anyone, at any time. TPE
depends on the results so far; its choice for a trial is therefore kept in the run folder as soon as it is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from lehr.data.randomness import key, uniform
from lehr.job import to_dict
from lehr.job.search import Dimension
from lehr.search.space import DIGITS, Space, Values, holds

STARTUP = 10  # trials that are drawn at random before TPE has something to go by; Optuna's own default


@dataclass(frozen=True)
class Told:
    """What is known of an earlier trial.

    Attributes:
        values: those that applied.
        state: running, finished (to its end), ended (early, by the search) or failed.
        scores: after every epoch, higher is better.
    """

    values: Values
    state: Literal["running", "finished", "ended", "failed"]
    scores: tuple[float, ...]


def random_values(space: Space, seed: int, number: int) -> Values:
    """Independent draws; a dimension's draws do not change when another is added or taken away."""
    row = torch.tensor([number])
    return space.at({path: float(uniform(key(seed, f"search {path}"), row)) for path in space.dimensions})


def quasi_random_values(space: Space, seed: int, number: int) -> Values:
    """The next point of a scrambled Sobol sequence (Owen, 1998), which leaves no large holes and repeats no value."""
    count = max(1, len(space.dimensions))
    engine = torch.quasirandom.SobolEngine(count, scramble=True, seed=abs(key(seed, "sobol")) % 2**31)
    point = engine.fast_forward(number).draw(1, dtype=torch.float64)[0].clamp(0, 1 - 1e-9).tolist()
    return space.at(dict(zip(space.dimensions, point, strict=False)))


def tpe_values(space: Space, seed: int, number: int, told: Sequence[Told]) -> Values:
    """What Optuna's tree-structured Parzen estimator (Bergstra et al., 2011) suggests after what was told.

    The sampler is made anew for every trial, from its number and all results, so there is no state to keep. Trials that
    were ended early count by how far they came, failed ones as the worst, running ones keep others away from them.
    """
    done = [each for each in told if each.state in ("finished", "ended")]
    if len(done) < STARTUP:
        return random_values(space, seed, number)
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.TPESampler(
        seed=abs(key(seed, "tpe", number)) % 2**31, n_startup_trials=STARTUP, constant_liar=True
    )
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.add_trials([_as_optuna(space, each) for each in told])
    trial = study.ask()
    plain = [path for path, dimension in space.dimensions.items() if dimension.when is None]
    chosen = {path: _suggest(trial, path, space.dimensions[path]) for path in plain}
    job = to_dict(space.trial(chosen, "trial")[0])
    for path, dimension in space.dimensions.items():
        if dimension.when is not None and holds(dimension.when, job):
            chosen[path] = _suggest(trial, path, dimension)
    rest = random_values(space, seed, number)  # what does not apply is drawn all the same, and left out
    return {path: chosen.get(path, rest[path]) for path in space.dimensions}


def _suggest(trial: Any, path: str, dimension: Dimension) -> Any:
    if dimension.values is not None:
        return dimension.values[trial.suggest_categorical(path, list(range(len(dimension.values))))]
    low, high = dimension.ends
    if dimension.form == "int":
        return trial.suggest_int(path, int(low), int(high))
    drawn = trial.suggest_float(path, low, high, log=dimension.form == "log_uniform")
    return min(max(float(f"{drawn:.{DIGITS}g}"), low), high)


def distribution(dimension: Dimension) -> Any:
    """The dimension as Optuna's; values one by one are known to it by their place in the list."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if (values := dimension.values) is not None:
        return CategoricalDistribution(list(range(len(values))))
    low, high = dimension.ends
    if dimension.form == "int":
        return IntDistribution(int(low), int(high))
    return FloatDistribution(low, high, log=dimension.form == "log_uniform")


def to_optuna(dimension: Dimension, value: Any) -> Any:
    return dimension.values.index(value) if dimension.values is not None else value


def _as_optuna(space: Space, told: Told) -> Any:
    import optuna

    states = {"finished": "COMPLETE", "ended": "PRUNED", "failed": "PRUNED", "running": "RUNNING"}
    scores = () if told.state == "failed" else told.scores
    return optuna.trial.create_trial(
        state=optuna.trial.TrialState[states[told.state]],
        value=max(scores) if told.state == "finished" else None,
        params={path: to_optuna(space.dimensions[path], value) for path, value in told.values.items()},
        distributions={path: distribution(space.dimensions[path]) for path in told.values},
        intermediate_values={epoch + 1: max(scores[: epoch + 1]) for epoch in range(len(scores))},
    )
