"""What else could look like each finding, and the probe that tells it apart: the practice as a table.

A curve shows an effect; several causes may have the same one. `ALTERNATIVES` lists them by finding, the likeliest
first; `TELLS` has the probe of `lehr diagnose RUN --probe` that tells each apart. A new finding takes its row here.

Sources of the table, where the practice is written down:
[1] Karpathy, "A recipe for training neural networks", 2019.
[2] Goodfellow, Bengio, Courville, "Deep learning", 2016, chapter 11.5, "Debugging strategies".
[3] Smith, "Cyclical learning rates for training neural networks", 2017.
[4] Zhang et al., "Understanding deep learning requires rethinking generalization", 2017.
[5] Wu and Johnson, "Rethinking 'batch' in BatchNorm", 2021.
[6] Rabanser, Günnemann and Lipton, "Failing loudly", 2019.
[7] Northcutt, Jiang and Chuang, "Confident learning", 2021.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

ProbeName = Literal["weights", "linear", "clean", "statistics", "rates", "parts", "labels", "overfit"]
Cause = Literal[
    "frozen",
    "labels",
    "noisy_labels",
    "split",
    "stale_statistics",
    "rate_too_low",
    "rate_too_high",
    "schedule",
    "dropout",
    "augmentation",
    "weight_decay",
    "clipping",
    "label_smoothing",
    "initialization",
    "network",
    "few_rows",
]

QUESTIONS: dict[ProbeName, str] = {
    "weights": "Which weights did the training move?",
    "linear": "What does a linear model make of the same rows?",
    "clean": "How good is the trained network on its training rows, as they are and as it was trained on them?",
    "statistics": "Is it better with the statistics of each batch than with those that batch norm remembers?",
    "rates": "Does it learn faster at another learning rate, or at one that stays?",
    "parts": "Does it learn faster without one of the things that hold it back?",
    "labels": "Does it learn these labels any better than shuffled ones?",
    "overfit": "Can it memorise one batch?",
}
"""What each probe asks, those that train nothing first."""

CAUSES: dict[Cause, str] = {
    "frozen": "most of the network is not trained",
    "labels": "the labels do not belong to the images",
    "noisy_labels": "many training labels are wrong",
    "split": "validation rows are unlike training rows",
    "stale_statistics": "batch norm's running statistics lag behind the weights",
    "rate_too_low": "the learning rate is too low",
    "rate_too_high": "the learning rate is too high",
    "schedule": "the schedule takes the learning rate away too early",
    "dropout": "dropout is too strong",
    "augmentation": "augmentation is too strong",
    "weight_decay": "weight decay is too strong",
    "clipping": "gradients are clipped too hard",
    "label_smoothing": "label smoothing is too strong",
    "initialization": "the initial weights pass no signal",
    "network": "the network is too small, or loses what tells the classes apart",
    "few_rows": "there are too few training rows, and the network learns them by heart",
}

TELLS: dict[Cause, tuple[ProbeName, str]] = {
    "frozen": ("weights", "[2]"),
    "labels": ("labels", "[1], [4]"),
    "noisy_labels": ("linear", "[7]"),
    "split": ("linear", "[6]"),
    "stale_statistics": ("statistics", "[5]"),
    "rate_too_low": ("rates", "[3]"),
    "rate_too_high": ("rates", "[3]"),
    "schedule": ("rates", "[3]"),
    "dropout": ("parts", "[1]"),
    "augmentation": ("parts", "[1]"),
    "weight_decay": ("parts", "[2]"),
    "clipping": ("parts", ""),
    "label_smoothing": ("parts", ""),
    "initialization": ("overfit", "[1], [2]"),
    "network": ("overfit", "[1], [2]"),
    "few_rows": ("clean", "[2]"),
}
"""By cause, the probe that tells it from others, and the source."""

HOLDS_BACK: tuple[Cause, ...] = ("dropout", "augmentation", "weight_decay", "clipping", "label_smoothing")
UNSEEN: tuple[Cause, ...] = ("stale_statistics", "frozen", "schedule", *HOLDS_BACK, "rate_too_low", "noisy_labels")

ALTERNATIVES: dict[str, tuple[Cause, ...]] = {
    # nothing, or hardly anything, is learned
    "diverged": ("weight_decay", "initialization", "labels"),
    "not_learning": ("rate_too_low", "frozen", "labels", "initialization", "clipping", "weight_decay"),
    "at_chance": ("labels", "split", "stale_statistics", "rate_too_high", "weight_decay", "network"),
    "bad_initialization": ("rate_too_low", "rate_too_high", "network"),
    "rate_too_low": ("clipping", "weight_decay", "frozen", "schedule", "augmentation"),
    "decayed_too_early": ("rate_too_low", "clipping", "frozen"),
    "oscillating": ("rate_too_high", "noisy_labels", "augmentation"),
    "plateau": ("rate_too_high", "network", *HOLDS_BACK, "frozen", "noisy_labels"),
    "too_short": ("rate_too_low", "schedule", *HOLDS_BACK, "noisy_labels", "frozen", "stale_statistics"),
    "underfitting": (
        "rate_too_low",
        "frozen",
        *HOLDS_BACK,
        "schedule",
        "noisy_labels",
        "labels",
        "stale_statistics",
        "network",
    ),
    "unclear": (
        "rate_too_low",
        "frozen",
        *HOLDS_BACK,
        "schedule",
        "noisy_labels",
        "labels",
        "split",
        "stale_statistics",
        "network",
    ),
    # training rows are learned, others are not
    "overfitting": ("split", "noisy_labels", "labels"),
    "split_differs": ("labels", "few_rows", "stale_statistics"),
    # a cause that the job or the record names
    "frozen": ("rate_too_low", "clipping", "network"),
    "clipped": ("rate_too_low", "weight_decay", "frozen"),
    "too_regularised": ("rate_too_low", "frozen", "network", "schedule"),
    "stale_statistics": ("split", "rate_too_high", "dropout"),
    # the rows
    "bad_inputs": ("labels", "split"),
    "leak": ("split",),
    "class_missing": ("split",),
    "imbalanced": ("network", "rate_too_low", "split"),
    "noisy_labels": ("split", "stale_statistics", "augmentation", "labels"),
    # nothing wrong was seen
    "too_little": ("rate_too_low", "labels", "frozen"),
    "healthy": (),
    "nothing_seen": UNSEEN,
}
"""By finding, what else could look like it, the likeliest first."""

CLAIMS: dict[str, tuple[Cause, ...]] = {
    "diverged": ("rate_too_high",),
    "bad_initialization": ("initialization",),
    "rate_too_low": ("rate_too_low",),
    "decayed_too_early": ("schedule",),
    "overfitting": ("few_rows",),
    "split_differs": ("split",),
    "frozen": ("frozen",),
    "clipped": ("clipping",),
    "too_regularised": HOLDS_BACK,
    "stale_statistics": ("stale_statistics",),
    "noisy_labels": ("noisy_labels",),
}
"""By finding, the causes that it names itself, which probes confirm or rule out."""


@dataclass(frozen=True)
class Alternative:
    """Another cause of what a finding shows.

    Attributes:
        cause: short and stable, for programs. what: the same in words.
        probe: its name; it tells this cause from others. source: where the practice has it from; empty: our own.
    """

    cause: Cause
    what: str
    probe: ProbeName
    source: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def alternatives_of(finding: str) -> tuple[Alternative, ...]:
    """What else could look like a finding, by its name; empty for one that the table does not have."""
    return tuple(Alternative(each, CAUSES[each], *TELLS[each]) for each in ALTERNATIVES.get(finding, ()))


def causes_of(findings: Iterable[str]) -> tuple[Cause, ...]:
    """The causes that these findings name, and then those that could look the same, the likeliest first."""
    names = list(findings)
    claimed = [cause for name in names for cause in CLAIMS.get(name, ())]
    return tuple(dict.fromkeys((*claimed, *(each.cause for name in names for each in alternatives_of(name)))))


def probes_for(findings: Iterable[str]) -> tuple[ProbeName, ...]:
    """The probes that tell the causes of these findings apart, those of the likeliest causes first."""
    return tuple(dict.fromkeys(TELLS[cause][0] for cause in causes_of(findings)))


MOST_SHOWN = 4  # alternatives in a terminal; reports and JSON have them all


def in_a_line(finding: str, most: int | None = None, ruled_out: Container[str] = ()) -> str:
    """`Could also be: … (rates); … (weights).`; empty where there is no alternative that is not ruled out."""
    found = [each for each in alternatives_of(finding) if each.cause not in ruled_out]
    shown = [f"{each.what} (probe: {each.probe})" for each in found[:most]]
    more = f"; {len(found) - len(shown)} more in the report" if len(shown) < len(found) else ""
    return f"Could also be: {'; '.join(shown)}{more}." if shown else ""
