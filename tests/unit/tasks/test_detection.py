"""The parts of detection keep to their formulas: what a location learns, its loss, and what becomes of the outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lehr import models
from lehr.data.targets import RaggedTensor
from lehr.tasks.base import Learned
from lehr.tasks.detection.decoding import decode, suppress
from lehr.tasks.detection.network import Detector, locations
from lehr.tasks.detection.targets import assign, centreness, giou, losses
from lehr.tasks.detection.task import Detection
from lehr.tasks.feature_maps import feature_maps


def boxes(*rows: list[list[float]]) -> RaggedTensor:
    return RaggedTensor.of([torch.tensor(row, dtype=torch.float64).reshape(-1, 6) for row in rows])


def where(side: int = 64, strides: tuple[int, ...] = (4, 8)) -> Tensor:
    """The locations of levels over a square image."""
    each = [locations(side // stride, side // stride, stride, torch.device("cpu"), torch.float64) for stride in strides]
    return torch.cat(each)


# ── what a location learns ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_location_learns_the_smallest_box_around_it_whose_centre_is_near() -> None:
    # Two boxes with one centre; the larger has room for locations of its own within a stride and a half.
    learned = assign(where(), boxes([[2, 8, 8, 32, 32, 0], [5, 15, 15, 25, 25, 0]]), torch.float64)
    points = where()[:, :2]
    for number in range(256):  # of the finest level
        x, y = points[number].tolist()
        middle = max(abs(x - 20), abs(y - 20)) < 6
        inside = 15 < x < 25 and 15 < y < 25
        wanted = 5 if middle and inside else 2 if middle and 8 < x < 32 and 8 < y < 32 else -1
        assert learned.label[0, number] == wanted, (x, y)
    assert learned.counts.all()
    chosen = learned.label[0, :256] == 5
    x, y = points[:256][chosen].T
    assert torch.equal(learned.sides[0, :256][chosen], torch.stack([x - 15, y - 15, 25 - x, 25 - y], 1))


def test_a_box_is_learned_by_the_level_of_its_size() -> None:
    small, large = [0.0, 10, 10, 24, 24, 0], [1.0, 2, 2, 126, 126, 0]
    learned = assign(where(128), boxes([small, large]), torch.float64)
    assert set(learned.label[0, :1024].tolist()) == {-1, 0}  # longest distances up to 8 strides of 4
    assert set(learned.label[0, 1024:].tolist()) == {-1, 1}


def test_boxes_around_many_things_are_not_learned_and_cost_nothing() -> None:
    learned = assign(where(), boxes([[3, 0, 0, 40, 40, 1]]), torch.float64)
    assert (learned.label == -1).all()
    inside = ((where()[:, 0] < 40) & (where()[:, 1] < 40)).tolist()
    assert learned.counts[0].tolist() == [not each for each in inside]


def test_rows_without_boxes_learn_that_nothing_is_there() -> None:
    outputs = torch.cat([where()[None].repeat(2, 1, 1), torch.randn(2, 320, 5 + 3, dtype=torch.float64)], 2)
    outputs[:, :, 3:7] = outputs[:, :, 3:7].abs()
    empty, one = losses(outputs, boxes([], [[0, 10, 10, 24, 24, 0]])).tolist()
    assert empty > 0
    assert one > 0


def test_the_loss_of_a_row_does_not_depend_on_the_rows_beside_it() -> None:
    outputs = torch.cat([where()[None].repeat(3, 1, 1), torch.rand(3, 320, 8, dtype=torch.float64)], 2)
    targets = boxes([[0, 10, 10, 24, 24, 0]], [], [[1, 2, 2, 62, 62, 0], [2, 20, 20, 30, 34, 0]])
    together = losses(outputs, targets)
    alone = torch.cat([losses(outputs[k : k + 1], targets[k : k + 1]) for k in range(3)])
    assert torch.allclose(together, alone, atol=1e-12)
    unread = RaggedTensor(targets.values, targets.starts, torch.tensor([True, True, False]))
    assert losses(outputs, unread)[2] == 0
    assert losses(outputs[:0], targets[:0]).shape == (0,)


def test_the_focal_loss_of_locations_without_a_box_is_its_formula() -> None:
    logits = torch.tensor([-2.0, 0.5, 3.0], dtype=torch.float64)
    outputs = torch.cat([where()[None], torch.zeros(1, 320, 8, dtype=torch.float64)], 2)
    outputs[0, :, 8:] = -40.0
    outputs[0, 7, 8:] = logits
    p = logits.sigmoid()
    assert float(losses(outputs, boxes([]))) == pytest.approx(float((-0.75 * p**2 * (1 - p).log()).sum()), abs=1e-9)


@pytest.mark.parametrize(
    ("one", "other", "wanted"),
    [
        ([2, 2, 2, 2], [2, 2, 2, 2], 1.0),
        ([1, 1, 1, 1], [2, 2, 2, 2], 0.25),  # inside: nothing around both is left over
        ([1, 2, 3, 2], [3, 2, 1, 2], 8 / 24),  # beside each other: 4 of 6 across, and none left over
    ],
)
def test_giou_of_boxes_around_one_point(one: list[float], other: list[float], wanted: float) -> None:
    assert float(giou(torch.tensor(one).double(), torch.tensor(other).double())) == pytest.approx(wanted)


def test_centreness_is_one_in_the_middle_and_its_formula_elsewhere() -> None:
    found = centreness(torch.tensor([[3.0, 5, 3, 5], [1, 2, 4, 8], [0, 1, 2, 1]]))
    assert found.tolist() == pytest.approx([1.0, (1 / 4 * 2 / 8) ** 0.5, 0.0])


# ── what becomes of the outputs ─────────────────────────────────────────────────────────────────────────────────────


def naive(scores: np.ndarray, labels: np.ndarray, sides: np.ndarray, overlap: float) -> list[int]:
    """Greedy suppression, one box after the other."""
    kept: list[int] = []
    for at in np.argsort(-scores, kind="stable"):
        if scores[at] < 0.05:
            continue
        hidden = False
        for other in kept:
            low, high = np.maximum(sides[at, :2], sides[other, :2]), np.minimum(sides[at, 2:], sides[other, 2:])
            shared = float(np.clip(high - low, 0, None).prod())
            area = float((sides[at, 2:] - sides[at, :2]).prod() + (sides[other, 2:] - sides[other, :2]).prod())
            hidden |= labels[at] == labels[other] and shared / (area - shared) > overlap
        if not hidden:
            kept.append(int(at))
    return kept


@pytest.mark.parametrize("seed", range(4))
def test_suppression_keeps_what_the_plain_loop_keeps(seed: int) -> None:
    random = np.random.default_rng(seed)
    low = random.uniform(0, 40, (3, 60, 2))
    sides = np.concatenate([low, low + random.uniform(5, 20, (3, 60, 2))], 2)
    scores, labels = random.uniform(0, 1, (3, 60)).round(2), random.integers(0, 3, (3, 60))
    each = torch.from_numpy(scores), torch.from_numpy(labels), torch.from_numpy(sides)
    found = suppress(*each, most=100, overlap=0.4)
    for row in range(3):
        kept = naive(scores[row], labels[row], sides[row], 0.4)
        real = found[row][found[row, :, 0] > 0]
        assert real[:, 0].tolist() == scores[row, kept].tolist()
        assert sorted(map(tuple, real[:, 1:].tolist())) == sorted(
            (float(labels[row, at]), *sides[row, at].tolist()) for at in kept
        )
    assert suppress(*each, most=5, overlap=0.4).shape == (3, 5, 6)


def test_an_output_becomes_the_box_that_it_means() -> None:
    outputs = torch.zeros(1, 320, 8 + 3, dtype=torch.float64)
    outputs[0, :, :3] = where()
    outputs[0, :, 8:] = -9.0
    outputs[0, 85, 3:7] = torch.tensor([1.0, 2.0, 3.0, 0.5])  # of the cell in column 5, row 5, whose stride is 4
    outputs[0, 85, 7], outputs[0, 85, 9] = 2.0, 1.0
    found = decode(outputs)
    x = y = 22.0
    score = (torch.sigmoid(torch.tensor(2.0)) * torch.sigmoid(torch.tensor(1.0))).sqrt()
    assert found[0, 0].tolist() == pytest.approx([float(score), 1, x - 4, y - 8, x + 12, y + 2], abs=1e-6)
    assert found[0, 1].tolist() == [0, -1, 0, 0, 0, 0]
    assert decode(outputs[:0]).shape == (0, 100, 6)


def test_a_detector_of_perfect_outputs_has_the_highest_average_precision() -> None:
    truth = boxes([[0, 10, 10, 24, 24, 0], [2, 30, 30, 50, 58, 0]], [], [[1, 4, 4, 20, 12, 0]])
    values = np.zeros((3, 100, 6), np.float32)
    values[:, :, 1] = -1
    for row, each in enumerate(truth.rows()):
        for number, box in enumerate(each.tolist()):
            values[row, number] = [0.9 - number / 10, box[0], *box[1:5]]
    task = Detection(("a", "b", "c"))
    measured = task.measure(values, truth)
    assert measured["map"] == pytest.approx(1.0)
    assert task.errors(values, truth).tolist() == [0, 0, 0]
    values[2, 0, 1] = 0  # told as another class
    assert task.errors(values, truth)[2] == pytest.approx(1 + 0.9)
    assert task.measure(values, truth)["ap_b"] == 0
    assert task.caption(values[2], truth.rows()[2].numpy()) == ["0 of 1 found", "missed: b", "wrongly told: a"]


def test_boxes_are_told_from_the_score_on_that_is_best_on_validation_rows() -> None:
    truth = boxes([[0, 10, 10, 24, 24, 0], [1, 30, 30, 50, 58, 0]], [[0, 4, 4, 20, 12, 0]])
    values = np.zeros((2, 100, 6), np.float32)
    values[:, :, 1] = -1
    values[0, :3] = [[0.9, 0, 10, 10, 24, 24], [0.7, 1, 30, 30, 50, 58], [0.3, 1, 10, 10, 24, 24]]
    values[1, :2] = [[0.6, 0, 4, 4, 20, 12], [0.2, 1, 4, 4, 20, 12]]
    task = Detection(("a", "b"))
    chosen = task.choices(values, truth)
    assert chosen["told_from"] == pytest.approx((0.6 + 0.3) / 2)
    kept = Detection.restore(task.names, task.with_choices(chosen).state(), "sigmoid")
    assert [len(kept.told(row, 5)) for row in values] == [2, 1]
    assert kept.errors(values, truth).tolist() == [0, 0]
    assert task.choices(values[:, 3:], truth) == {"told_from": 0.5}


def test_boxes_are_placed_in_the_original_image_and_those_beside_it_are_left_out() -> None:
    values = np.zeros((1, 100, 6))
    values[:, :, 1] = -1
    values[0, :3] = [[0.9, 1, 10, 40, 30, 60], [0.8, 0, 4, 8, 12, 40], [0.7, 2, 60, 0, 70, 10]]
    # 128 × 64 pixels went into 64 × 64: the lower half is grey.
    found = Detection(("a", "b", "c")).in_original(values, np.array([[64, 128]]), np.array([[0.5, 0.5]]))
    assert found[0, :2].tolist() == [[0.8, 0, 8, 16, 24, 64], [0.7, 2, 120, 0, 128, 20]]
    assert found[0, 2].tolist() == [0, -1, 0, 0, 0, 0]


# ── its network ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "side", "strides"), [("small_cnn", 64, (4, 8, 16)), ("resnet20", 65, (4, 8, 16)), ("resnet9", 64, (8, 16))]
)
def test_a_pyramid_stands_on_the_feature_maps_of_any_backbone(name: str, side: int, strides: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    detector = Detector(models.build(name, 1, 3, {}, 0), (1, side, side), 3, width=16, depth=1).eval()
    assert detector.strides == strides
    outputs = detector(torch.randn(2, 1, side, side))
    assert outputs.shape == (2, sum((-(-side // stride)) ** 2 for stride in strides), 11)
    outputs.sum().backward()
    without = [name for name, each in detector.named_parameters() if each.requires_grad and each.grad is None]
    assert without == []  # workers average the gradients of all that trains
    assert detector.dropped == "head"


class Transformer(nn.Module):
    """Patches of the image, and layers over them."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(channels, 8, 8, 8)
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))
        self.head = nn.Linear(8, outputs)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2)
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean(1))


class Reused(nn.Module):
    """One activation after layers of two strides: what it gives last is not the map of the finer one."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(channels, 8, 3, 8, 1), nn.Conv2d(8, 8, 3, 2, 1)
        self.activation, self.head = nn.ReLU(), nn.Linear(8, outputs)

    def forward(self, images: Tensor) -> Tensor:
        x = self.activation(self.first(images))
        return self.head(self.activation(self.second(x)).mean((2, 3)))


def test_every_level_has_as_many_locations_as_its_stride_says() -> None:
    detector = Detector(Reused(1, 3), (1, 64, 64), 3)
    assert [each.layer for each in detector.maps] == ["first", "second"]
    where = detector(torch.zeros(1, 1, 64, 64))[0, :, :3]
    assert {int(stride): int((where[:, 2] == stride).sum()) for stride in where[:, 2].unique()} == {8: 64, 16: 16}


class Pooled(nn.Module):
    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.head = nn.Linear(channels, outputs)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images.mean((2, 3)))


def test_a_backbone_without_maps_of_the_image_is_refused() -> None:
    assert [each.stride for each in feature_maps(Transformer(1, 3), torch.zeros(2, 1, 64, 64))] == [8]
    with pytest.raises(ValueError, match="most of its layers come after patches"):
        Detector(Transformer(1, 3), (1, 64, 64), 3)
    with pytest.raises(ValueError, match="gives no feature maps"):
        Detector(Pooled(1, 3), (1, 64, 64), 3)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"width": 4}, "width: 4 is out of range"), ({"depth": -1}, "depth: -1"), ({"finest": 0}, "finest: 0 is out")],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Detection.fit(Learned(("a",), boxes([[0, 1, 1, 5, 5, 0]])), **options)


def test_rows_without_any_box_cannot_be_trained_on() -> None:
    with pytest.raises(ValueError, match="no row to train on has a box"):
        Detection.fit(Learned(("a",), boxes([], [[0, 1, 1, 5, 5, 1]])))
