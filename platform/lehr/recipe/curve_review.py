"""Step 6, look at learning curves: what the diagnosis of the best trial asks for; and step 7, whether to go on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lehr.recipe.coarse import unrelated
from lehr.recipe.refine import EPOCHS
from lehr.recipe.results import Verdict, tidy
from lehr.recipe.trial_results import Found, Round, Setting, Trained, best_of, pool, ranked, shown, standard_error

Ask = Literal["longer", "regularise", "wider", "decay", "done"]
MOST_ROUNDS = 6

BEYOND = 3.0  # times the highest rate or weight decay, where the best lies at that edge


@dataclass(frozen=True)
class Look:
    """What the curves ask for.

    Attributes:
        asks: what to do, the most pressing first; `done` and `decay` end the search.
        wanted: settings for the next round. longest: its epochs at most.
        longer_last: whether the last training may take more epochs than the job says: it gains from them as long as
            what is learned holds for other images too.
        verdict: the same in words.
    """

    asks: tuple[Ask, ...]
    wanted: tuple[Setting, ...]
    longest: int
    longer_last: bool
    verdict: Verdict

    @property
    def goes_on(self) -> bool:
        return not set(self.asks) & {"decay", "done"}


def look(rounds: Sequence[Round]) -> Look:
    """What to do after the last of these rounds."""
    now, best = rounds[-1], best_of(rounds)
    diagnosis, setting = now.diagnosis, best.setting
    asks: list[Ask] = []
    wanted: list[Setting] = []
    why: list[str] = []
    if edges := beyond(rounds):
        asks.append("wider")
        wanted += edges
        why.append(f"the best lies at the edge of what was tried, so {_words(edges, setting)} joins")
    if diagnosis.name == "rate_too_low" and not any(edge.rate > setting.rate for edge in edges):
        asks.append("wider")
        wanted.append(setting.model_copy(update={"rate": tidy(setting.rate * BEYOND)}))
        why.append(f"a higher rate of {wanted[-1].rate:g} joins")
    if diagnosis.name == "overfitting":
        asks.append("regularise")
        stronger = regularised(setting, diagnosis)
        wanted += stronger
        why.append(f"more regularisation joins: {_words(stronger, setting)}")
    longer = diagnosis.name in ("too_short", "too_little")
    if longer and best.epochs < EPOCHS:
        asks.append("longer")
        why.append("the best go on for longer")
    wanted = [each for each in wanted if each not in {t.setting for t in pool(rounds).values()}]
    if diagnosis.name in ("plateau", "oscillating") and not wanted:
        asks = ["decay"]
        why.append("what is left to gain needs a rate that decays, which the last training has")
    if not wanted and asks not in (["longer"], ["decay"]):
        asks = ["done"]
        why.append("nothing here asks for another round")
    if settled := no_better(rounds):
        asks, why = ["done"], [settled]
    found = f"{diagnosis.title}: {diagnosis.evidence}."
    decided = f"{'; '.join(why)[:1].upper()}{'; '.join(why)[1:]}."
    return Look(tuple(asks), tuple(wanted), EPOCHS, diagnosis.name != "overfitting", Verdict(True, found, decided))


def beyond(rounds: Sequence[Round]) -> list[Setting]:
    """The settings just outside the edges at which the best lies; empty where it lies inside."""
    best = best_of(rounds).setting
    tried = [each.setting for each in pool(rounds).values()]
    rates, decays = sorted({s.rate for s in tried}), sorted({s.decay for s in tried})
    found = []
    if len(rates) > 1 and best.rate == rates[-1]:
        found.append(best.model_copy(update={"rate": tidy(best.rate * BEYOND)}))
    elif len(rates) > 1 and best.rate == rates[0]:
        found.append(best.model_copy(update={"rate": tidy(best.rate / BEYOND)}))
    if len(decays) > 1 and best.decay == decays[-1]:
        found.append(best.model_copy(update={"decay": tidy(best.decay * BEYOND)}))
    return found


def regularised(setting: Setting, diagnosis: Found) -> list[Setting]:
    """Weight decay five times as strong; and the same with what the diagnosis proposes beside it."""
    stronger = setting.model_copy(update={"decay": tidy(max(5 * setting.decay, 5e-4))})
    kept = {path: value for path, value in diagnosis.overrides.items() if path != "optimizer.weight_decay"}
    kept.pop("data.limit", None)  # how much of the data is used is for the job to say
    told = {path: json.dumps(value) for path, value in kept.items()}
    changes = tuple(sorted((dict(setting.changes) | told).items()))
    return list(dict.fromkeys([stronger.model_copy(update={"changes": changes}), stronger]))


def no_better(rounds: Sequence[Round]) -> str:
    """Why another round is not worth its cost; empty where the last one gained more than noise, or was the first."""
    if len(rounds) > MOST_ROUNDS:
        return f"{MOST_ROUNDS} rounds are enough"
    if len(rounds) < 3:
        return ""
    lower, metric = rounds[-1].lower, rounds[-1].metric
    now, before = best_of(rounds).best(lower), best_of(rounds[:-1]).best(lower)
    error = standard_error(now, rounds[-1].validation_rows) if metric.endswith("accuracy") else 0.01 * abs(before)
    if now - before > error:
        return ""
    return (
        f"the last round brought {shown(abs(now), metric)} after {shown(abs(before), metric)}, within the noise of "
        f"{shown(error, metric)}: nothing improves any more"
    )


def judge(rounds: Sequence[Round]) -> Verdict:
    """What the last round trained, in words; the curves are judged by `look`."""
    now, best = rounds[-1], best_of(rounds)
    if told := unrelated(now, best, len(pool(rounds))):
        return told
    longer = [t for t in now.trained if t.setting in {e.setting for e in pool(rounds[:-1]).values()}]
    top: Trained = ranked(now.trained, now.lower)[0]
    reached = max((trained.epochs for trained in now.trained), default=0)
    value = shown(abs(best.best(now.lower)), now.metric)
    found = (
        f"{len(now.trained)} trials up to {reached} epochs at a constant rate, {len(longer)} of them taken up where "
        f"they were: {now.epochs} epochs were trained"
    )
    which = "The best of them is the best so far" if top.folder == best.folder else "The best is still an earlier one"
    return Verdict(
        True, f"{found}. {which}, with {value}: {best.setting}.", "The curves of the best decide what is next."
    )


def _words(settings: Sequence[Setting], than: Setting) -> str:
    words = []
    for each in settings:
        parts = [f"rate {each.rate:g}"] if each.rate != than.rate else []
        parts += [f"weight decay {each.decay:g}"] if each.decay != than.decay else []
        parts += [text for text in each.extra if text not in than.extra]
        words.append(" with ".join(parts))
    return " and ".join(words)
