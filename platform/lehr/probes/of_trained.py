"""Probes of the trained network and of the rows: they train nothing."""

from __future__ import annotations

import torch

from lehr.data.augment import Augment
from lehr.data.load import augmentations
from lehr.data.survey import survey
from lehr.intervals import in_words, is_above, no_better, overlap, unlike
from lehr.probes.results import Evidence, ProbeResult
from lehr.probes.subject import Look, Subject, is_dropout

MOVED = 0.5  # share of the weights that must have moved for most of the network to be trained
FITTED = 0.97  # accuracy on training rows from which on nothing keeps a network from learning
MUCH = 0.1  # difference of two accuracies that is worth a cause, if it is no chance
HIDDEN = 0.25  # accuracy that augmentation or dropout takes from a network that lacks it


def weights(s: Subject) -> ProbeResult:
    """The share of the weights that are still as they were before training."""
    if s.network is None:
        return ProbeResult("weights", "The run kept no model", left_out=True)
    before = dict(s.plan.build_model().named_parameters())
    after = {name: value.cpu() for name, value in s.network.named_parameters() if name in before}
    same = {name: torch.equal(before[name], value) for name, value in after.items()}
    count = sum(value.numel() for value in after.values())
    still = sum(after[name].numel() for name, is_same in same.items() if is_same)
    if not count:
        return ProbeResult("weights", "The model is no longer the network of the job", left_out=True)
    said = f"{still:,} of {count:,} weights, in {sum(same.values())} of {len(same)} tensors, are as they were at first"
    said = said if still else f"Training moved all {len(same)} tensors of the network"
    reached = s.reached()
    if still <= (1 - MOVED) * count:
        return ProbeResult("weights", said, (Evidence("frozen", -1.0),))
    harmless = s.job.finetune is not None or (reached is not None and reached.share >= FITTED)
    return ProbeResult("weights", said, () if harmless else (Evidence("frozen", 1.5),))


def linear(s: Subject) -> ProbeResult:
    """A linear model on small images, on validation rows and on training rows that it was not fitted on."""
    found = s.survey if s.survey.linear is not None else survey(s.splits, s.job.seed)
    if found.linear is None or found.held_out is None:
        return ProbeResult("linear", "Images are decoded during training, and too many to look at", left_out=True)
    rows, held = min(len(s.splits.validation), found.validation.seen), found.held_out_rows
    said = (
        f"A linear model on images of 8 × 8 pixels is right for {in_words(found.linear, rows)} of the validation rows "
        f"and for {in_words(found.held_out, held)} of training rows that it was not fitted on; always naming the most "
        f"frequent class is for {s.chance:.1%}"
    )
    learns = is_above(found.linear, s.chance, rows), is_above(found.held_out, s.chance_in_training, held)
    nothing = no_better(found.linear, s.chance, rows) and no_better(found.held_out, s.chance_in_training, held)
    evidence = [Evidence("labels", -1.0 if any(learns) else 0.3 if nothing else 0.0)]
    drop = found.held_out - found.linear
    differs = abs(drop) > MUCH and not overlap(found.held_out, found.linear, held, rows)
    if any(learns):
        evidence.append(Evidence("split", 0.5 + drop if differs and drop > 0 else -0.3, {"data.validation": 0.2}))
        evidence.append(Evidence("noisy_labels", 0.5 - drop if differs and drop < 0 else -0.1))
    return ProbeResult("linear", said, tuple(evidence))


def statistics(s: Subject) -> ProbeResult:
    """The same rows with the running statistics of batch norm, and with those of each batch."""
    running = s.look_once("running", s.fitted)
    batch = s.reached()
    if running is None or batch is None:
        return _no_room("statistics", s)
    said = (
        f"Of the same training rows, {_told(batch)} are right with the statistics of each batch, and {_told(running)} "
        "with those that batch norm remembers"
    )
    if s.kept_early:
        return ProbeResult("statistics", f"{said}; the kept model is of an early epoch, where they always lag")
    gain = batch.share - running.share
    if gain > MUCH / 2 and differ(batch, running):
        change = {"model.norm": "group"} if s.job.model.options.get("norm") == "batch" else {}
        return ProbeResult("statistics", said, (Evidence("stale_statistics", 1.0 + gain, change),))
    return ProbeResult("statistics", said, (Evidence("stale_statistics", -1.0),))


def clean(s: Subject) -> ProbeResult:
    """Training rows as they are, as augmented, and with dropout; and validation rows."""
    plain = s.reached()
    other = s.look_once("validation", s.validation)
    if plain is None or other is None:
        return _no_room("clean", s)
    said = [f"The trained network is right for {_told(plain)} of training rows as they are"]
    evidence = []
    steps = s.plan.augment
    if s.job.data.augment and (unmixed := _without_mixing(s)):
        augmented = s.look_once("augmented", s.fitted, batch_statistics=True, augment=unmixed)
        if augmented:
            said.append(f"for {_told(augmented)} as they are augmented")
            evidence += _hides("augmentation", plain, augmented)
    if any(map(is_dropout, s.network.modules() if s.network else ())):
        dropped = s.look_once("dropped", s.fitted, batch_statistics=True, dropout=True)
        if dropped:
            said.append(f"for {_told(dropped)} with dropout")
            evidence += _hides("dropout", plain, dropped)
    said.append(f"for {_told(other)} of validation rows")
    gap = plain.share - other.share
    apart = gap > MUCH / 2 and not overlap(plain.share, other.share, plain.rows, other.rows)
    if not steps.mixes:
        evidence.append(Evidence("few_rows", 0.55 if apart and plain.share >= FITTED - 0.05 else -0.3))
    return ProbeResult("clean", f"{', '.join(said[:-1])} and {said[-1]}", tuple(evidence))


def _hides(cause: str, plain: Look, hidden: Look) -> list[Evidence]:
    """Evidence that what is done to rows in training hides them, where the network has not learned to see through."""
    takes = plain.share - hidden.share
    if plain.share < FITTED and takes > HIDDEN and differ(plain, hidden):
        return [Evidence("dropout" if cause == "dropout" else "augmentation", 0.3 + takes / 2)]
    return []


def _without_mixing(s: Subject) -> Augment | None:
    """The augmentations of the job but for those that mix images; None where no other is left."""
    from lehr.data.augment import MIXES

    left = [each for each in s.job.data.augment if each.name not in MIXES]
    if not left:
        return None
    job = s.job.model_copy(update={"data": s.job.data.model_copy(update={"augment": left})})
    return augmentations(job)


def differ(one: Look, other: Look) -> bool:
    """Whether two looks at the same rows differ by more than chance."""
    return unlike(int((one.right & ~other.right).sum()), int((other.right & ~one.right).sum()))


def _told(found: Look) -> str:
    return in_words(found.share, found.rows)


def _no_room(name: str, s: Subject) -> ProbeResult:
    from lehr.curves.alternatives import QUESTIONS

    known = next(each for each in QUESTIONS if each == name)
    what = "The run kept no model" if s.network is None else "The budget has no room for it"
    return ProbeResult(known, what, left_out=True)
