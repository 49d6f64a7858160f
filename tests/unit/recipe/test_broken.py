"""What is broken on purpose is caught at its step, with a sentence that names the cause; what is sound passes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from markupsafe import escape

from lehr.errors import LehrError
from lehr.recipe.state import RecipeState
from lehr.runs import RunFolder

Cook = Callable[..., RunFolder]

INITIAL, OVERFIT = "Step 1, initial loss: ", "Step 2, overfit a small sample: "


@pytest.mark.parametrize(
    ("model", "step", "sentences"),
    [
        ("LargeHead", INITIAL, ["The loss starts at ", "the last layer, head (Linear)", "times too large"]),
        ("CutOff", INITIAL, ["No gradient reaches features.0 (Conv2d)", "such as detach()"]),
        ("NotUsed", INITIAL, ["No gradient reaches extra (Linear) (1 of 8 layers)", "does not use it"]),
        ("Dead", INITIAL, ["Dead units: all of the inputs of features.7 (Conv2d) are zero for every image"]),
        (
            "Unnormalised",
            INITIAL,
            ["The inputs are not normalised: those of the first layer, features.0 (Conv2d), have mean"],
        ),
        ("TwiceSoftmax", INITIAL, ["ends in a softmax", "applied twice", "return logits"]),
        ("Sigmoid", INITIAL, ["between 0 and 1, as after a sigmoid"]),
        ("SevenClasses", INITIAL, ["returns [2, 7] for 2 images; allowed: [2, 10], a logit for each class"]),
        ("Frozen", INITIAL, ["No parameter requires a gradient, so the optimizer has nothing to train"]),
        ("InAList", INITIAL, ["The layers in layers are kept in a plain list", "nn.ModuleList"]),
        (
            "Blind",
            INITIAL,
            ["The outputs are the same for every image: from features.0 (Conv2d) on, all images look the same"],
        ),
        ("Infinite", INITIAL, ["NaN or infinite before any training, first in head (Linear)"]),
        ("OneNumber", OVERFIT, ["almost nothing of an image gets through the network"]),
        ("FourNumbers", OVERFIT, ["too small", "did not memorise 320 training images at any of the learning rates"]),
        ("Noisy", OVERFIT, ["Labels do not seem to match inputs", "no better than that of a guess"]),
    ],
)
def test_a_broken_network_is_caught_at_its_step(cook: Cook, model: str, step: str, sentences: list[str]) -> None:
    with pytest.raises(LehrError) as caught:
        cook(base__model=f"broken:{model}", recipe__stop_after="overfit")
    assert str(caught.value).startswith(step)
    for sentence in sentences:
        assert sentence in str(caught.value)
    page = Path("runs/job/report.html").read_text()
    assert "The recipe stops here" in page
    assert str(escape(sentences[0])) in page


def test_shuffled_labels_are_caught_although_they_can_be_memorised(cook: Cook, shuffled_labels: Path) -> None:
    data = {"source": "parquet", "path": str(shuffled_labels)}
    with pytest.raises(LehrError) as caught:
        cook(base__data=data, base__model={"name": "small_cnn", "width": 32, "norm": "batch"})
    assert str(caught.value).startswith("Step 2, overfit a small sample: The labels look unrelated to the images")
    assert "memorised all 320 images of the sample" in str(caught.value)


@pytest.mark.parametrize("start_at", ["learning_rate", "coarse"])
def test_shuffled_labels_are_caught_by_later_steps_too(cook: Cook, shuffled_labels: Path, start_at: str) -> None:
    with pytest.raises(LehrError) as caught:
        cook(base__data={"source": "parquet", "path": str(shuffled_labels)}, recipe__start_at=start_at, budget="80ep")
    assert "labels look unrelated to the images" in str(caught.value)


def test_a_fixed_network_continues_at_the_step_that_failed(cook: Cook, tmp_path: Path) -> None:
    net = "from broken import Dead, Sound\nclass Net({}):\n    pass\n"
    (tmp_path / "fixed.py").write_text(net.format("Dead"))
    with pytest.raises(LehrError, match="Dead units"):
        cook(base__model="fixed:Net", recipe__stop_after="initial_loss")
    vars(sys.modules["fixed"])["Net"] = sys.modules["broken"].Sound
    run = cook(base__model="fixed:Net", recipe__stop_after="initial_loss")
    assert RecipeState.read(run.folder).initial is not None
    assert run.status() == "stopped"


@pytest.mark.parametrize(
    "model",
    [
        "small_cnn",
        {"name": "small_cnn", "norm": "batch", "dropout": 0.5},
        {"name": "small_cnn", "norm": "none"},
        "resnet20",
        {"name": "cifar_resnet", "depth": 14},
        {"name": "wide_resnet", "depth": 10, "width": 2},
        "broken:Sound",
    ],
    ids=str,
)
def test_sound_networks_pass_the_first_two_steps(cook: Cook, model: Any) -> None:
    run = cook(base__model=model, recipe__stop_after="overfit")
    found = RecipeState.read(run.folder)
    assert found.overfit
    assert found.overfit.last.outcome == "memorised"
