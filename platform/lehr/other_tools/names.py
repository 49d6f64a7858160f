"""What the tools call their columns, and what each means."""

from __future__ import annotations

import re

from lehr.other_tools.log import FALLING, LEARNING_RATE, RISING, Meaning, Split

EPOCH = ("epoch", "epochs")
STEP = ("step", "steps", "global_step", "trainer_global_step", "_step", "iter", "iteration", "iterations")
NO_CURVES = ("time", "runtime", "timestamp", "per_second", "flos", "seconds", "duration")
"""How the names of columns end that count time."""

TRAIN = {"train", "training", "tr"}
VALIDATION = {"val", "valid", "validation", "eval", "dev", "metrics"}  # Ultralytics: metrics/mAP50(B)
TEST = {"test"}  # of the rows that choose the model in DeiT's and its heirs' logs; else of others

_QUANTITIES = {
    "accuracy": {"acc", "accuracy", "top1", "acc1", "prec1", "precision1", "categorical", "acctop1"},
    "map": {"map5095", "map", "ap"},
    "map50": {"map50", "ap50"},
    "auc": {"auc", "auroc", "rocauc"},
    "iou": {"iou", "miou", "meaniou", "jaccard"},
    "dice": {"dice"},
    "error": {"error", "err", "err1"},
    "perplexity": {"ppl", "perplexity"},
}
_ALIASES = {word: quantity for quantity, words in _QUANTITIES.items() for word in words}
_ALIASES |= {word: word for word in (*RISING, *FALLING)}
_ALIASES |= {"f1score": "f1", "recall": "recall", "precision": "precision", "rougel": "rouge", "rouge1": "rouge"}
_SPECIAL = {"map50_95": "map5095", "map_50_95": "map5095", "f1_score": "f1score", "mean_iou": "miou"}
_SPECIAL |= {"roc_auc": "rocauc", "top_1": "top1", "acc_top1": "acctop1", "acc_1": "acc1", "acc@1": "acc1"}
_OTHER_LEVELS = {"top5", "acc5", "top_5", "acc_5", "top3"}


def plain(column: str) -> str:
    """A column's name in lower case, its words joined by `_`: `metrics/mAP50-95(B)` → `metrics_map50_95`."""
    name = re.sub(r"\([a-z]\)", "", column.strip().lower())
    return re.sub(r"[^a-z0-9@]+", "_", name).strip("_") if name != "_step" else name


def is_time(column: str) -> bool:
    return plain(column).endswith(NO_CURVES)


def meaning_of(column: str) -> Meaning | None:
    """What a column means by its name; None for one of no use here. The split is empty where the name has none."""
    name = plain(column)
    for long, short in _SPECIAL.items():
        name = re.sub(rf"(^|_){re.escape(long)}(_|$)", rf"\g<1>{short}\g<2>", name)
    words = name.split("_")
    if {"lr", "learningrate"} & set(words) or "learning_rate" in name:
        return LEARNING_RATE
    if _OTHER_LEVELS & set(words) or ({"min", "max"} & set(words) and name.endswith(("_min", "_max"))):
        return None
    split = _split(words)
    left = [each for each in words if each not in TRAIN | VALIDATION | TEST | {"epoch", "step", "mean", "avg", "eval"}]
    if "loss" in left:
        kind = "_".join(each for each in left if each not in ("loss", "total"))
        return Meaning(split, "loss" if not kind else f"{kind}_loss")
    known = [_ALIASES[each] for each in left if each in _ALIASES]
    return Meaning(split, known[0]) if known else None


def _split(words: list[str]) -> Split:
    for word in words:
        if word in TRAIN:
            return "train"
        if word in VALIDATION | TEST:
            return "validation"
    return ""


def level_of(column: str) -> str:
    """`epoch` or `step` where Lightning says at which of both a value was logged."""
    last = plain(column).rsplit("_", 1)[-1]
    return last if last in ("epoch", "step") else ""
