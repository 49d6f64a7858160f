"""Step 6, the review of the learning curves: what the diagnosis of the best trial asks for, and whether to go on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lehr.formatting import count_of
from lehr.recipe.coarse import unrelated
from lehr.recipe.refine import EPOCHS
from lehr.recipe.results import Verdict, round_to_digit
from lehr.recipe.trial_results import (
    Hyperparameters,
    RoundDiagnosis,
    SearchRound,
    all_trials,
    best_trial,
    format_metric,
    ranked,
    standard_error,
)

Action = Literal["longer", "regularise", "wider", "decay", "done"]
MOST_ROUNDS = 6

BEYOND = 3.0  # factor beyond the highest or lowest value tried, if the best lies at that edge


@dataclass(frozen=True)
class CurveReview:
    """What the curves ask for.

    Attributes:
        actions: the most urgent first; `done` and `decay` end the search.
        settings: to try in the next round. longest: its epochs at most.
        longer_final: whether the final training may take more epochs than the job says. It gains from them unless the
            network overfits.
        verdict: the same in words.
    """

    actions: tuple[Action, ...]
    settings: tuple[Hyperparameters, ...]
    longest: int
    longer_final: bool
    verdict: Verdict

    @property
    def continues(self) -> bool:
        """Whether there is another round."""
        return not set(self.actions) & {"decay", "done"}


def review(rounds: Sequence[SearchRound]) -> CurveReview:
    """What to do after the last of these rounds."""
    best, diagnosis = best_trial(rounds), rounds[-1].diagnosis
    setting = best.setting
    actions: list[Action] = []
    wanted: list[Hyperparameters] = []
    why: list[str] = []
    if edges := beyond_edges(rounds):
        actions.append("wider")
        wanted += edges
        why.append(
            f"the best setting is at the edge of the values tried, so the next round adds {_changes(edges, setting)}"
        )
    if diagnosis.name == "rate_too_low" and not any(edge.rate > setting.rate for edge in edges):
        actions.append("wider")
        wanted.append(setting.model_copy(update={"rate": round_to_digit(setting.rate * BEYOND)}))
        why.append(f"the next round adds a higher learning rate of {wanted[-1].rate:g}")
    if diagnosis.name == "overfitting":
        actions.append("regularise")
        stronger = regularised(setting, diagnosis)
        wanted += stronger
        why.append(f"the next round adds stronger regularisation: {_changes(stronger, setting)}")
    longer = diagnosis.name in ("too_short", "too_little")
    if longer and best.epochs < EPOCHS:
        actions.append("longer")
        why.append("the best trials continue for more epochs")
    known = {trial.setting for trial in all_trials(rounds).values()}
    wanted = [each for each in wanted if each not in known]
    if diagnosis.name in ("plateau", "oscillating") and not wanted:
        actions = ["decay"]
        why.append("further gains need a decaying learning rate, which the final training has")
    if not wanted and actions not in (["longer"], ["decay"]):
        actions = ["done"]
        why.append("nothing here calls for another round")
    if settled := no_better(rounds):
        actions, why = ["done"], [settled]
    found = f"{diagnosis.title}: {diagnosis.evidence}."
    decided = f"{'; '.join(why)}."
    verdict = Verdict(True, found, decided[:1].upper() + decided[1:])
    return CurveReview(tuple(actions), tuple(wanted), EPOCHS, diagnosis.name != "overfitting", verdict)


def beyond_edges(rounds: Sequence[SearchRound]) -> list[Hyperparameters]:
    """The settings just beyond the edges at which the best setting lies; empty if it lies inside."""
    best = best_trial(rounds).setting
    tried = [trial.setting for trial in all_trials(rounds).values()]
    rates, decays = sorted({s.rate for s in tried}), sorted({s.decay for s in tried})
    found = []
    if len(rates) > 1 and best.rate == rates[-1]:
        found.append(best.model_copy(update={"rate": round_to_digit(best.rate * BEYOND)}))
    elif len(rates) > 1 and best.rate == rates[0]:
        found.append(best.model_copy(update={"rate": round_to_digit(best.rate / BEYOND)}))
    if len(decays) > 1 and best.decay == decays[-1]:
        found.append(best.model_copy(update={"decay": round_to_digit(best.decay * BEYOND)}))
    return found


def regularised(setting: Hyperparameters, diagnosis: RoundDiagnosis) -> list[Hyperparameters]:
    """Weight decay five times as strong, with what else the diagnosis proposes; and the weight decay alone."""
    stronger = setting.model_copy(update={"decay": round_to_digit(max(5 * setting.decay, 5e-4))})
    kept = {path: value for path, value in diagnosis.overrides.items() if path != "optimizer.weight_decay"}
    kept.pop("data.limit", None)  # how much of the data is used is for the job to say
    proposed = {path: json.dumps(value) for path, value in kept.items()}
    changes = tuple(sorted((dict(setting.changes) | proposed).items()))
    return list(dict.fromkeys([stronger.model_copy(update={"changes": changes}), stronger]))


def no_better(rounds: Sequence[SearchRound]) -> str:
    """Why another round is not worth its cost; empty if the last one gained more than noise, or was the first."""
    if len(rounds) > MOST_ROUNDS:
        return f"the limit of {MOST_ROUNDS} rounds is reached"
    if len(rounds) < 3:
        return ""
    metric, rows = rounds[-1].metric, rounds[-1].validation_rows
    trial, earlier = best_trial(rounds), best_trial(rounds[:-1])
    now, before = trial.score(metric), earlier.score(metric)
    error = standard_error(now, rounds[-1].validation_rows) if metric.endswith("accuracy") else 0.01 * abs(before)
    if now - before > error:
        return ""
    return (
        f"the last round changed the best value from {earlier.format_best(metric, rows)} to "
        f"{trial.format_best(metric, rows)}, within the noise of {format_metric(error, metric)}: nothing improves any "
        "more"
    )


def judge(rounds: Sequence[SearchRound]) -> Verdict:
    """What the last round trained; `review` judges the curves."""
    now, best = rounds[-1], best_trial(rounds)
    if verdict := unrelated(now, best, len(all_trials(rounds))):
        return verdict
    before = {trial.setting for trial in all_trials(rounds[:-1]).values()}
    continued = sum(trial.setting in before for trial in now.trained)
    reached = max((trial.epochs for trial in now.trained), default=0)
    is_new = ranked(now.trained, now.metric)[0].folder == best.folder
    cut = f" {now.cut}" if now.cut else ""
    which = "The best trial of this round is the best so far" if is_new else "The best trial is from an earlier round"
    return Verdict(
        True,
        f"{_new_and_continued(len(now.trained) - continued, continued)} of up to {count_of(reached, 'epoch')} at a "
        f"constant learning rate; the round took {count_of(now.epochs, 'epoch')}. {which}: "
        f"{best.format_best(now.metric, now.validation_rows)} with {best.setting}.{cut}",
        "The learning curves of the best trial decide what comes next.",
    )


def _new_and_continued(new: int, continued: int) -> str:
    """`4 new and 2 continued trials`."""
    counts = {"new": new, "continued": continued}
    words = " and ".join(f"{count} {what}" for what, count in counts.items() if count)
    return f"{words} trial{'s' * (new + continued != 1)}"


def _changes(settings: Sequence[Hyperparameters], base: Hyperparameters) -> str:
    """What the settings change compared with `base`, in words."""
    words = []
    for each in settings:
        parts = [f"learning rate {each.rate:g}"] if each.rate != base.rate else []
        parts += [f"weight decay {each.decay:g}"] if each.decay != base.decay else []
        parts += [text for text in each.other_changes if text not in base.other_changes]
        words.append(" with ".join(parts))
    return " and ".join(words)
