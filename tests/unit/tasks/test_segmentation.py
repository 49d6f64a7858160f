"""What segmentation learns, measures and tells of masks."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lehr.data.augment import Augment
from lehr.data.dataset import Batch
from lehr.models import build
from lehr.models.vision import torchvision
from lehr.tasks.base import Learned
from lehr.tasks.mask_arrays import as_palette_png, colours, resized
from lehr.tasks.segmentation.losses import LOSSES
from lehr.tasks.segmentation.moving import move_masks
from lehr.tasks.segmentation.network import Ready, UNet
from lehr.tasks.segmentation.task import Segmentation

NAMES = ("background", "cat", "dog", "eel")
IGNORED, UNREAD = 255, 254


def masks(rows: int, height: int = 12, width: int = 10, classes: int = 4, seed: int = 0) -> np.ndarray:
    """Random masks, of which some pixels do not count, the last class is nowhere, and the first row is empty."""
    random = np.random.default_rng(seed)
    made = random.integers(0, classes - 1, (rows, height, width)).astype(np.uint8)
    made[random.random(made.shape) < 0.2] = IGNORED
    made[0] = IGNORED
    return made


# ── measured ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seed", range(5))
def test_mean_overlap_is_that_of_torchmetrics(seed: int) -> None:
    torchvision()  # which torchmetrics imports
    from torchmetrics.classification import MulticlassJaccardIndex

    random = np.random.default_rng(seed)
    truth = masks(7, seed=seed)
    found = np.where(
        random.random(truth.shape) < 0.6, np.where(truth < 4, truth, 0), random.integers(0, 4, truth.shape)
    )
    if seed % 2:
        found[found == 3] = 0  # the last class is neither true nor found
    both = torch.from_numpy(found), torch.from_numpy(truth).long()
    measured = Segmentation(NAMES).measure(found.astype(np.uint8), truth)
    each = MulticlassJaccardIndex(4, average="none", ignore_index=IGNORED)(*both).tolist()
    ours = [measured[f"iou_{name}"] for name in NAMES]
    assert all(math.isnan(one) or abs(one - other) < 1e-6 for one, other in zip(ours, each, strict=True))
    assert abs(measured["miou"] - float(MulticlassJaccardIndex(4, ignore_index=IGNORED)(*both))) < 1e-6
    assert math.isnan(ours[3]) == bool(seed % 2)
    counted = truth != IGNORED
    assert measured["pixel_accuracy"] == pytest.approx(float((found == truth)[counted].mean()), abs=1e-12)


def test_sums_over_parts_are_those_of_the_whole() -> None:
    task, truth = Segmentation(NAMES), torch.from_numpy(masks(9))
    outputs = torch.randn(9, 4, 12, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    whole = task.sums(outputs, truth)
    parts = [task.sums(outputs[rows], truth[rows]) for rows in (slice(0, 2), slice(2, 2), slice(2, 9))]
    assert torch.equal(sum(part["confusion"] for part in parts), whole["confusion"])  # type: ignore[arg-type]
    assert float(sum(part["loss"] for part in parts)) == pytest.approx(float(whole["loss"]), abs=1e-12)


def test_masks_without_a_counted_pixel_measure_nothing() -> None:
    empty = np.full((2, 4, 4), IGNORED, np.uint8)
    measured = Segmentation(NAMES).measure(np.zeros_like(empty), empty)
    assert all(math.isnan(value) for value in measured.values())


# ── learned ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_of_a_row_depends_on_its_own_counted_pixels_alone(name: str) -> None:
    loss, truth = LOSSES[name], torch.from_numpy(masks(6)).long()
    outputs = torch.randn(6, 4, 12, 10, dtype=torch.float64, requires_grad=True)
    each = loss(outputs, truth)
    for row in range(6):
        assert torch.allclose(loss(outputs[row : row + 1], truth[row : row + 1]), each[row], atol=1e-12)
    changed = torch.where((truth > 3)[:, None], outputs + 7, outputs)
    assert torch.allclose(loss(changed, truth), each, atol=1e-12)
    assert float(each[0].detach()) == 0  # no pixel of it counts
    each.sum().backward()
    assert outputs.grad is not None
    assert torch.isfinite(outputs.grad).all()
    assert not outputs.grad[(truth > 3)[:, None].expand_as(outputs)].any()


def test_losses_are_what_their_formulas_say() -> None:
    outputs = torch.tensor([[[[2.0, -1.0]], [[0.0, 1.0]]]], dtype=torch.float64)  # 1 row, 2 classes, 1 × 2 pixels
    truth = torch.tensor([[[0, 1]]])
    p = outputs.softmax(dim=1)
    right = torch.stack([p[0, 0, 0, 0], p[0, 1, 0, 1]])
    weights = torch.tensor([1.0, 3.0], dtype=torch.float64)
    assert torch.allclose(LOSSES["cross_entropy"](outputs, truth), -right.log().mean())
    weighted = -(right.log() * weights).mean()
    assert torch.allclose(LOSSES["cross_entropy"](outputs, truth, class_weights=weights), weighted)
    assert torch.allclose(LOSSES["focal"](outputs, truth, gamma=2.0), -((1 - right) ** 2 * right.log()).mean())
    overlap = (2 * right + 1) / (torch.stack([p[0, 0].sum(), p[0, 1].sum()]) + 1 + 1)
    assert torch.allclose(LOSSES["dice"](outputs, truth), (1 - overlap).mean())
    both = LOSSES["cross_entropy_dice"](outputs, truth, share=0.25)
    assert torch.allclose(both, 0.25 * (1 - overlap).mean() - 0.75 * right.log().mean())


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        (np.full((3, 4, 4), IGNORED, np.uint8), "no pixel of the rows to train on counts"),
        (np.ones((3, 4, 4), np.uint8), "all pixels to train on are of one class, cat"),
    ],
)
def test_masks_from_which_nothing_can_be_learned_are_refused(targets: np.ndarray, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Segmentation.fit(Learned(NAMES, torch.from_numpy(targets)))


def test_chance_says_the_class_of_most_pixels_everywhere() -> None:
    truth = np.zeros((2, 2, 5), np.uint8)
    truth[0, 0, :4] = [1, 1, 2, IGNORED]
    task = Segmentation.fit(Learned(NAMES, torch.from_numpy(truth)))
    assert task.chance == pytest.approx(task.measure(np.zeros_like(truth), truth)["miou"])
    assert task.chance_loss(torch.float64) == pytest.approx(math.log(4))


# ── networks ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("name", "size"), [("small_cnn", (20, 36)), ("resnet20", (32, 32)), ("resnet18", (64, 96))])
def test_a_u_net_gives_a_logit_for_each_pixel_of_any_backbone(name: str, size: tuple[int, int]) -> None:
    network = UNet(build(name, 3, 5, {}, 0), (3, *size), 5, width=8)
    found = network(torch.rand(2, 3, *size))
    assert found.shape == (2, 5, *size)
    found.square().mean().backward()
    learned = [each for each in network.parameters() if each.requires_grad]
    assert all(each.grad is not None for each in learned)


def test_torchvisions_networks_are_taken_as_they_are_with_their_auxiliary_head() -> None:
    task = Segmentation(NAMES)
    network = task.network(build("fcn_resnet50", 3, 4, {"aux_loss": True}, 0), (3, 32, 32))
    assert isinstance(network, Ready)
    assert network.head_name == "model.classifier"
    images, truth = torch.rand(2, 3, 32, 32), torch.from_numpy(masks(2, 32, 32))
    out, auxiliary = network.train()(images)
    both = task.loss((out, auxiliary), truth)
    assert torch.allclose(both, task.loss(out, truth) + 0.4 * task.loss(auxiliary, truth))
    assert network.eval()(images).shape == (2, 4, 32, 32)


def test_a_network_without_feature_maps_is_refused() -> None:
    with pytest.raises(ValueError, match="allowed: a convolutional network"):
        Segmentation(NAMES).network(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 4)), (3, 8, 8))


# ── moved ───────────────────────────────────────────────────────────────────────────────────────────────────────────

STEPS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "flip": [("flip", {})],
    "vertical flip": [("flip", {"direction": "vertical"})],
    "shift": [("shift", {"pixels": 4})],
    "crop": [("crop", {"padding": 4, "outside": "black"})],
    "flip and crop": [("flip", {}), ("crop", {"padding": 3, "outside": "black"})],
}


def batch(rows: int = 30) -> Batch:
    """Images whose value is that of their mask, times 40, plus 20."""
    found = torch.from_numpy(np.random.default_rng(3).integers(0, 4, (rows, 10, 14)).astype(np.uint8))
    return Batch(found[:, None] * 40 + 20, found, torch.arange(rows) + 700)


@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS.keys())
def test_each_pixel_keeps_its_class(steps: list[tuple[str, dict[str, Any]]]) -> None:
    moved = Augment(steps, 5, move=move_masks)(batch(), 2)
    images, found = moved.inputs[:, 0].long(), moved.targets.long()
    assert torch.equal(torch.where(found == IGNORED, torch.zeros_like(found), found * 40 + 20), images)
    assert bool((found == IGNORED).any()) == any(name != "flip" for name, _ in steps)


@pytest.mark.parametrize("step", [("random_resized_crop", {"smallest": 0.3}), ("scale_jitter", {"zoom": 2.0})])
def test_masks_follow_images_that_are_resized(step: tuple[str, dict[str, Any]]) -> None:
    # Large areas: the value of a pixel is that of its class, except near an edge.
    whole = torch.zeros(20, 40, 40, dtype=torch.uint8)
    whole[:, :17, :23], whole[:, 20:, 5:] = 1, 2
    moved = Augment([step], 5, move=move_masks)(Batch(whole[:, None] * 100, whole, torch.arange(20)), 1)
    images, found = moved.inputs[:, 0], moved.targets.float()
    counted = found != IGNORED
    assert ((images - found * 100).abs() < 1)[counted].float().mean() > 0.9
    if step[0] == "scale_jitter":
        assert not counted.all()
        assert ((images - 114).abs() < 1)[~counted].float().mean() > 0.8


def test_how_a_mask_moves_depends_on_its_row_and_the_epoch_alone() -> None:
    steps: list[tuple[str, dict[str, Any]]] = [("scale_jitter", {}), ("flip", {}), ("crop", {})]
    augment, whole = Augment(steps, 5, move=move_masks), batch()
    found = augment(whole, 2)
    rows = torch.tensor([17, 3])
    some = augment(Batch(whole.inputs[rows], whole.targets[rows], whole.ids[rows]), 2)
    assert torch.equal(some.targets, found.targets[rows])
    assert not torch.equal(augment(whole, 3).targets, found.targets)


# ── told ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_was_found_is_given_back_in_the_pixels_of_the_original() -> None:
    truth = resized(np.arange(24, dtype=np.uint8).reshape(4, 6) % 4, (40, 60))
    small = np.full((1, 30, 30), 3, np.uint8)
    small[0, :20] = resized(truth, (20, 30))  # 40 × 60 in a letterbox of 30 × 30
    (found,) = Segmentation(NAMES).in_original(small, np.array([[40, 60]]), np.array([[0.5, 0.5]]))
    assert found.shape == (40, 60)
    assert np.array_equal(found, truth)


def test_prediction_files_have_a_palette_png_and_shares() -> None:
    mask = np.array([[0, 1, 1, 1], [0, 1, 1, 1]], np.uint8)
    found = Segmentation(NAMES).columns(np.array([mask, mask, mask]), np.array([False, True, False]))
    assert found["classes"].to_pylist() == [["cat", "background"], None, ["cat", "background"]]
    assert found["shares"].to_pylist()[0] == [0.75, 0.25]
    content = found["mask"].to_pylist()[0]
    assert content is not None
    image = Image.open(io.BytesIO(content))
    assert image.mode == "P"
    assert np.array_equal(np.asarray(image), mask)
    assert image.convert("RGB").getpixel((1, 0)) == colours(2)[1] == (128, 0, 0)
    assert np.asarray(Image.open(io.BytesIO(as_palette_png(np.full((1, 1), IGNORED, np.uint8)))))[0, 0] == IGNORED


def test_the_report_tells_what_is_taken_for_what() -> None:
    truth = np.array([[0, 0, 1, 1, 2, IGNORED]], np.uint8)
    found = np.array([[0, 0, 2, 2, 2, 0]], np.uint8)
    task = Segmentation(NAMES)
    assert task.errors(found[None], truth[None]).tolist() == [0.4]
    assert "cat taken for dog: 40.0%" in task.caption(found, truth)
    head, lines = task.table(found[None], truth[None])
    assert head[2] == "IoU"
    assert lines[1] == ["cat", "40.0%", "0.0%", "0.0%", "", "dog"]
    (panel,) = task.panels(found[None], truth[None])
    assert panel.content["counts"][1] == [0, 0, 2, 0]
    drawn = task.draw(Image.new("L", (12, 4)), 2.0, found, truth)
    assert drawn.size == (28, 4)
