"""Average precision of boxes is that of pycocotools: with ties, crowds, empty images and classes without truth."""

from __future__ import annotations

import contextlib
import io
import math
from typing import Any

import numpy as np
import pytest

from lehr.tasks.box_precision import average_precision, match, overlaps

NAMES = ("cell", "platelet", "never", "only predicted")


def made_up(seed: int, images: int = 25) -> list[tuple[Any, ...]]:
    """Of each image: predicted boxes, scores, labels; true boxes, crowds."""
    random, found = np.random.default_rng(seed), []
    for number in range(images):
        count = 0 if number % 7 == 0 else int(random.integers(0, 12))
        corner, side = random.uniform(0, 300, (count, 2)), random.choice([12.0, 50.0, 140.0], (count, 2))
        truth = np.concatenate([random.integers(0, 2, (count, 1)), corner, corner + side], axis=1)
        crowd = random.random(count) < 0.15
        near = truth[random.random(count) < 0.8]
        boxes = near[:, 1:] + random.normal(0, 4, (len(near), 4)).round(1)
        wild = random.uniform(0, 200, (3, 2))
        boxes = np.concatenate([boxes, near[:2, 1:], np.concatenate([wild, wild + 60], axis=1)])
        labels = np.concatenate([near[:, 0], near[:2, 0], [0, 1, 3]]).astype(np.int64)
        scores = random.random(len(boxes)).round(1)  # many are equal
        found.append((boxes, scores, labels, truth, crowd))
    return found


def ours(images: list[tuple[Any, ...]]) -> dict[str, float]:
    return average_precision([match(*each) for each in images], NAMES)


def theirs(images: list[tuple[Any, ...]]) -> dict[str, float]:
    coco, cocoeval = (pytest.importorskip(f"pycocotools.{name}") for name in ("coco", "cocoeval"))

    def sides(box: Any) -> list[float]:
        return [float(box[0]), float(box[1]), float(box[2] - box[0]), float(box[3] - box[1])]

    truth, results = coco.COCO(), []
    truth.dataset = {
        "images": [{"id": number} for number in range(len(images))],
        "categories": [{"id": number + 1, "name": name} for number, name in enumerate(NAMES)],
        "annotations": [],
    }
    for number, (boxes, scores, labels, true, crowd) in enumerate(images):
        for box, many in zip(true, crowd, strict=True):
            x, y, wide, tall = sides(box[1:])
            about = {"image_id": number, "category_id": int(box[0]) + 1, "iscrowd": int(many), "area": wide * tall}
            known = truth.dataset["annotations"]
            known.append({**about, "id": len(known) + 1, "bbox": [x, y, wide, tall]})
        for box, score, label in zip(boxes, scores, labels, strict=True):
            about = {"image_id": number, "category_id": int(label) + 1}
            results.append({**about, "bbox": sides(box), "score": float(score)})
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        run = cocoeval.COCOeval(truth, truth.loadRes(results), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    names = ("map", "map_50", "map_75", "map_small", "map_medium", "map_large")
    found = dict(zip(names, run.stats[:6].tolist(), strict=True))
    for number, name in enumerate(NAMES):
        each = run.eval["precision"][:, :, number, 0, 2]
        found[f"ap_{name}"] = float(each[each > -1].mean()) if (each > -1).any() else -1.0
    return {name: math.nan if value < 0 else value for name, value in found.items()}


@pytest.mark.parametrize("seed", range(5))
def test_the_figures_are_those_of_pycocotools(seed: int) -> None:
    pytest.importorskip("pycocotools")
    images = made_up(seed)
    assert ours(images) == pytest.approx(theirs(images), abs=1e-6, nan_ok=True)


KNOWN: dict[int, dict[str, float]] = {
    0: {
        "map": 0.276922,
        "map_50": 0.429748,
        "map_75": 0.282289,
        "map_small": 0.296181,
        "map_medium": 0.242907,
        "map_large": 0.82451,
        "ap_cell": 0.244301,
        "ap_platelet": 0.309542,
        "ap_never": math.nan,
        "ap_only predicted": math.nan,
    },
    1: {
        "map": 0.190335,
        "map_50": 0.300769,
        "map_75": 0.187876,
        "map_small": 0.168719,
        "map_medium": 0.211868,
        "map_large": 0.750227,
        "ap_cell": 0.146911,
        "ap_platelet": 0.233759,
        "ap_never": math.nan,
        "ap_only predicted": math.nan,
    },
}
"""By seed, what pycocotools 2.0.11 gave."""


@pytest.mark.parametrize("seed", range(2))
def test_the_figures_are_those_that_pycocotools_gave(seed: int) -> None:
    found = {name: round(value, 6) for name, value in ours(made_up(seed)).items()}
    assert found == pytest.approx(KNOWN[seed], nan_ok=True)


def test_images_are_matched_apart_so_workers_can_share_them() -> None:
    images = made_up(7)
    shared = [match(*images[number]) for rank in range(2) for number in range(rank, len(images), 2)]
    order = np.argsort([number for rank in range(2) for number in range(rank, len(images), 2)])
    assert average_precision([shared[k] for k in order], NAMES) == pytest.approx(ours(images), nan_ok=True)


def test_a_perfect_answer_is_one_and_none_at_all_is_zero() -> None:
    truth = np.array([[0.0, 1, 1, 40, 40], [1, 50, 50, 60, 60]])
    crowd = np.zeros(2, bool)
    perfect = average_precision([match(truth[:, 1:], np.ones(2), truth[:, 0].astype(np.int64), truth, crowd)], NAMES)
    assert (perfect["map"], perfect["ap_cell"]) == (1.0, 1.0)
    assert math.isnan(perfect["ap_never"])
    assert math.isnan(perfect["map_large"])
    nothing = match(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64), truth, crowd)
    assert average_precision([nothing], NAMES)["map"] == 0.0


def test_boxes_without_area_overlap_nothing() -> None:
    point = np.array([[5.0, 5, 5, 5]])
    assert overlaps(point, point, np.zeros(1, bool)).tolist() == [[0.0]]


def test_the_mean_of_precision_over_recall_is_the_average_precision_at_half_overlap() -> None:
    from lehr.tasks.box_precision import precision_of_classes, precision_over_recall

    random = np.random.default_rng(5)
    images = []
    for _ in range(30):
        truth = random.uniform(0, 60, (int(random.integers(0, 4)), 2))
        whole = np.column_stack([random.integers(0, 3, len(truth)), truth, truth + 20]).astype(np.float64)
        found = np.concatenate([whole[:, 1:] + random.normal(0, 3, (len(truth), 4)), random.uniform(0, 50, (2, 4))])
        found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
        labels = np.concatenate([whole[:, 0], random.integers(0, 3, 2)]).astype(np.int64)
        crowd = random.random(len(truth)) < 0.2
        images.append(match(found, random.random(len(found)), labels, whole, crowd))
    each = precision_of_classes(images, 4)[:, 0, 0]
    curves = precision_over_recall(images, 4)
    assert curves[3] is None
    assert [float(curve.mean()) for curve in curves[:3] if curve is not None] == pytest.approx(each[:3].tolist())
    assert all((np.diff(curve) <= 0).all() for curve in curves[:3] if curve is not None)
