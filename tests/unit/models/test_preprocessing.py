"""Images reach a network as they did when its weights were made, in training and in everything that follows."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tests.unit.training.conftest import job_of, plan_of, synthetic

import lehr
from lehr import models
from lehr.data.decode import decode_image
from lehr.data.load import OpenedSources, splits
from lehr.data.preprocess import Preprocess
from lehr.errors import JobError
from lehr.job import TrainJob, as_it_was_meant, from_dict, load, to_dict
from lehr.job.merge import parse_overrides
from lehr.job.sections import PreprocessingSection
from lehr.models import pretrained
from lehr.models.recipes import Recipe, of_timm, resolve
from lehr.models.vision import torchvision
from lehr.models.weights import recipe_for
from lehr.runs import Folder, RunFolder
from lehr.training.group import Group
from lehr.training.loop import train
from lehr.training.setup import Plan, check_job
from lehr.trials.dataset_cache import same_images

SHAPES = [(37, 211), (211, 37), (64, 64), (224, 224), (300, 299), (255, 256), (41, 640), (97, 53), (500, 333), (83, 83)]


def photographs(shapes: list[tuple[int, int]] = SHAPES) -> list[bytes]:
    """PNG files of these widths and heights: smooth colours with some noise."""
    random = np.random.default_rng(26)
    files = []
    for width, height in shapes:
        small = random.integers(0, 256, (5, 5, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC), np.int16)
        noisy = np.clip(smooth + random.integers(-20, 21, smooth.shape), 0, 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(noisy).save(file, "PNG")
        files.append(file.getvalue())
    return files


def prepared(recipe: Recipe, file: bytes) -> torch.Tensor:
    """What the network gets of an image file, [channels, height, width]."""
    height, width = recipe.size or (0, 0)
    scale = recipe.mean or (), recipe.std or ()
    preprocess = Preprocess(height, width, recipe.channels or 0, *scale, None, recipe.resize, recipe.interpolation)
    pixels = torch.from_numpy(decode_image(file, preprocess.wanted).copy()).permute(2, 0, 1)
    return preprocess(pixels[None], torch.float32)[0]


@pytest.mark.parametrize("name", ["resnet18", "vit_b_16", "efficientnet_b1", "swin_t", "regnet_y_400mf"])
def test_odd_shapes_become_what_torchvision_makes_of_them(name: str) -> None:
    theirs = torchvision().models.get_model_weights(name).DEFAULT.transforms()
    for file in photographs():
        expected = theirs(Image.open(io.BytesIO(file)))
        assert float((prepared(pretrained.recipe("pretrained", name), file) - expected).abs().max()) < 1e-5


CONFIG: dict[str, Any] = {
    "input_size": [3, 224, 224], "crop_pct": 0.95, "interpolation": "bicubic",
    "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4],
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # what timm 1.0.31 makes of it: timm.data.create_transform(**timm.data.resolve_data_config(…)), .transforms
        ({}, ((224, 224), 235, "bicubic", False)),
        ({"crop_pct": None}, ((224, 224), 256, "bicubic", False)),
        ({"crop_pct": 0.9, "interpolation": None}, ((224, 224), 248, "bilinear", False)),
        ({"input_size": [3, 299, 299], "crop_pct": 0.875}, ((299, 299), 341, "bicubic", False)),
        ({"crop_pct": 1.0, "crop_mode": "squash"}, ((224, 224), None, "bicubic", False)),
        ({"crop_mode": "border"}, ((224, 224), 235, "bicubic", True)),  # pads the image, which is not done here
    ],
)
def test_a_configuration_of_timm_is_read_as_timm_does(changes: dict[str, Any], expected: tuple[Any, ...]) -> None:
    found = of_timm({**CONFIG, **changes}, "mine")
    assert (found.size, found.resize, found.interpolation, found.guessed) == expected
    assert (found.mean, found.std) == ((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))


def test_an_image_that_is_no_square_is_covered_as_timm_covers_it() -> None:
    """timm.data.transforms.ResizeKeepRatio([64, 128]) makes 133 × 64 of 100 × 48, and 128 × 192 of 60 × 90."""
    recipe = Recipe(3, (0.0,) * 3, (1.0,) * 3, (56, 112), 64, "bilinear")
    for (width, height), scaled in (((100, 48), (133, 64)), ((60, 90), (128, 192))):
        (file,) = photographs([(width, height)])
        whole = Image.open(io.BytesIO(file)).resize(scaled, Image.Resampling.BILINEAR)
        expected = torchvision().transforms.functional.center_crop(whole, [56, 112])
        values = torch.from_numpy(np.array(expected)).permute(2, 0, 1) / 255
        assert float((prepared(recipe, file) - values).abs().max()) < 1e-6


# ── where it is from ──────────────────────────────────────────────────────────────────────────────────────────────────


def weights_file(folder: Path, metadata: dict[str, str] | None = None, beside: object = None) -> Path:
    tensors = models.build("small_cnn", 3, 5, {"width": 8}, seed=9).state_dict()
    save_file(tensors, folder / "net.safetensors", metadata)
    if beside is not None:
        (folder / "config.json").write_text(json.dumps(beside))
    return folder / "net.safetensors"


def test_a_file_says_itself_what_its_weights_were_made_with(tmp_path: Path) -> None:
    inside = weights_file(tmp_path, {"pretrained_cfg": json.dumps(CONFIG)})
    assert pretrained.recipe(str(inside), "small_cnn") == replace(of_timm(CONFIG, str(inside)))
    beside = weights_file(tmp_path, {"format": "pt"}, {"architecture": "small", "pretrained_cfg": CONFIG})
    found = pretrained.recipe(str(beside), "resnet18")
    assert (found.resize, found.mean, found.guessed) == (235, (0.4, 0.5, 0.6), False)
    assert found.source.endswith("config.json")


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (
            {"pretrained_cfg": {"mean": [1, 2, 3]}},
            "how the weights of .*config.json were made cannot be read: KeyError",
        ),
        ({"pretrained_cfg": {**CONFIG, "std": [0, 1, 1]}}, "its sizes do not fit together"),
        ({"pretrained_cfg": {**CONFIG, "interpolation": "hamming"}}, '"hamming" is not an? interpolation'),
        ({"pretrained_cfg": 3}, "is not a mapping"),
    ],
)
def test_what_a_file_says_is_not_passed_over_where_it_is_damaged(damage: object, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=sentence):
        pretrained.recipe(str(weights_file(tmp_path, None, damage)), "small_cnn")


def test_one_line_says_whose_preprocessing_it_is_and_what_to_type_where_it_is_guessed(tmp_path: Path) -> None:
    known = pretrained.recipe("pretrained", "resnet18").sentence("model.preprocessing")
    assert known == (
        "pixels as (x - mean)/std of torchvision's ResNet18_Weights.IMAGENET1K_V1; the shorter side resized to 256, "
        "and 224 × 224 cut out (bilinear)"
    )
    guess = pretrained.recipe(str(weights_file(tmp_path)), "resnet18").sentence("backbone.preprocessing")
    assert guess.startswith(f"{known}: guessed, since the weights do not say")
    typed = guess[guess.index("backbone.preprocessing.mean=") :].replace("backbone", "model").split()
    assert recipe_for(job_of(**parse_overrides(typed))).fields == pretrained.recipe("pretrained", "resnet18").fields
    unknown = pretrained.recipe(str(weights_file(tmp_path)), "small_cnn").sentence("model.preprocessing")
    assert unknown.startswith("pixels as (x - mean)/std of these training images: guessed, ")


# ── what the job says instead ─────────────────────────────────────────────────────────────────────────────────────────

KNOWN = Recipe(3, (0.4,) * 3, (0.2,) * 3, (224, 224), 256, "bicubic", "theirs")
SQUASHED = Recipe(1, (0.3,), (0.2,), (28, 28), None, "bilinear", "run:mine")


def said(**fields: Any) -> PreprocessingSection:
    return PreprocessingSection.model_validate(fields)


@pytest.mark.parametrize(
    ("theirs", "given", "size", "expected"),
    [
        (KNOWN, None, None, {"size": (224, 224), "resize": 256}),
        (KNOWN, None, (112, 112), {"size": (112, 112), "resize": 128}),  # as large a share is cut off
        (KNOWN, said(crop=192, resize=200), None, {"size": (192, 192), "resize": 200, "interpolation": "bicubic"}),
        (KNOWN, said(resize="squash"), None, {"size": None, "resize": None}),
        (KNOWN, said(resize="squash", crop=96), None, {"size": (96, 96), "resize": None}),
        (KNOWN, said(mean=127, std=128, range=[0, 255]), None, {"mean": (127 / 255,) * 3, "std": (128 / 255,) * 3}),
        (KNOWN, said(mean=[1, 1, 1], std=0.5, range=[-1, 1]), None, {"mean": (1.0,) * 3, "std": (0.25,) * 3}),
        (SQUASHED, None, None, {"size": None, "resize": None}),  # as before: images keep their size
        (SQUASHED, None, (14, 14), {"size": (14, 14), "resize": None}),
        (SQUASHED, said(crop=14), None, {"size": (14, 14), "resize": 14}),
        (None, said(mean=0.5, std=0.5), None, {"mean": (0.5,), "channels": None}),
        (None, None, (9, 9), {"size": (9, 9), "resize": None, "mean": None}),
    ],
)
def test_what_the_job_says_comes_first(
    theirs: Recipe | None, given: PreprocessingSection | None, size: tuple[int, int] | None, expected: dict[str, Any]
) -> None:
    found = resolve(theirs, given, size)
    assert {name: getattr(found, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"mean": 127}, "mean needs std beside it"),
        ({"mean": 127, "std": 128}, r"mean \[127.0\] is not within range, 0 to 1; set range: \[0, 255\]"),
        ({"mean": 0.5, "std": 0.0}, r"std \[0.0\] is too small"),
        ({"mean": [0.1, 0.2, 0.3], "std": [1, 1, 1, 1]}, "mean is of 3 channels and std of 4"),
        ({"mean": [0.1, 0.2], "std": 1}, r"\[0.1, 0.2\] is not one number, or one for each of 1, 3 or 4 channels"),
        ({"range": [0, 255]}, "range is the unit of mean and std, which are not set"),
        ({"resize": 100, "crop": 112}, "resize 100 is less than the 112 pixels that are cut out"),
        ({"resize": 100}, "resize 100 needs crop beside it, such as crop: 100"),
        ({"interpolation": "bicubic"}, "interpolation has no effect on images that keep their size"),
        ({"interpolation": "cubic"}, '"cubic" is not an? interpolation; did you mean bicubic'),
        (
            {"crop": 12, "data.image_size": 9},
            r"crop \[12, 12\] contradicts data.image_size \[9, 9\]; remove one of them",
        ),
    ],
)
def test_a_contradiction_is_refused_in_one_sentence(fields: dict[str, Any], sentence: str) -> None:
    paths = {name if "." in name else f"model.preprocessing.{name}": value for name, value in fields.items()}
    with pytest.raises(JobError, match=sentence) as caught:
        check_job(job_of(**paths))
    assert "\n" not in str(caught.value)


def test_trials_share_decoded_images_only_if_they_are_prepared_alike() -> None:
    plain, cut = job_of(), job_of(**{"model.preprocessing.crop": 8})
    assert same_images(plain) == same_images(job_of(model__width=16))
    assert same_images(plain) != same_images(cut)
    assert same_images(cut) != same_images(job_of(**{"model.preprocessing": {"crop": 8, "resize": "squash"}}))


# ── from training to prediction ───────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Photographs of two classes and many shapes."""
    files = photographs([(20 + 3 * number, 60 - 2 * number) for number in range(16)])
    for number, file in enumerate(files):
        place = tmp_path / "photos" / ("cat", "dog")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:02d}.png").write_bytes(file)
    return tmp_path / "photos"


def trained_on(photos: Path, **fields: Any) -> tuple[Plan, lehr.Run]:
    data = {"source": "images", "path": str(photos)}
    scale = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}
    job = job_of(
        data=data, model__preprocessing={"crop": 16, "resize": 20, "interpolation": "bicubic", **scale}, **fields
    )
    opened = OpenedSources(job)
    plan = Plan.make(job, splits(job, opened.decode()))
    run = RunFolder.create(Folder.at(photos.parent / "run"), to_dict(job))
    train(plan, run, Group())
    return plan, lehr.Run(photos.parent / "run")


def test_a_run_predicts_from_the_pixels_that_it_was_trained_on(photos: Path) -> None:
    plan, run = trained_on(photos)
    rows = plan.splits.validation
    batch = rows.gather(torch.arange(len(rows)))
    assert batch.inputs.shape[1:] == (3, 16, 16)
    source = OpenedSources(plan.job).main
    files = {row: photos / "/".join(Path(source.name_of(row)).parts[-2:]) for row in batch.ids.tolist()}
    recipe = Recipe(3, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4), (16, 16), 20, "bicubic")
    for inputs, number in zip(plan.inputs(batch.inputs), batch.ids.tolist(), strict=True):
        assert float((inputs - prepared(recipe, files[number].read_bytes())).abs().max()) < 1e-6
    model = plan.build_model().eval()
    model.load_state_dict(run.best_model().state_dict())
    with torch.inference_mode():
        expected = model(plan.inputs(batch.inputs)).softmax(1)
    found = run.predict([files[number] for number in batch.ids.tolist()])
    assert np.abs(found - expected.numpy()).max() < 1e-6


def test_weights_of_that_run_are_started_from_as_it_prepared_its_images(photos: Path) -> None:
    plan, _ = trained_on(photos)
    job = job_of(data={"source": "images", "path": str(photos)}, model__weights=f"run:{photos.parent / 'run'}")
    opened = OpenedSources(job)
    assert opened.wanted == plan.preprocess.wanted
    assert Plan.make(job, splits(job, opened.decode())).preprocess == plan.preprocess
    assert any(note.startswith("pixels as (x - mean)/std of run:") for note in opened.notes)


def test_a_description_without_them_is_read_as_before() -> None:
    """Earlier runs resized both sides, bilinear."""
    before = {"height": 8, "width": 9, "channels": 3, "mean": [0.5] * 3, "std": [0.2] * 3}
    found = Preprocess.from_description(before)  # type: ignore[arg-type]
    assert (found.wanted.size, found.wanted.resize, found.wanted.interpolation) == ((8, 9), None, "bilinear")
    assert dict(found.describe()) == {**before, "mean": (0.5,) * 3, "std": (0.2,) * 3}


def test_a_run_of_before_with_published_weights_keeps_the_size_of_its_images() -> None:
    """Its resolved job has no `preprocessing` at all; that of a present one has it, as null."""
    before = to_dict(job_of(model={"name": "resnet18", "weights": "pretrained"}))
    del before["model"]["preprocessing"]
    job = from_dict(as_it_was_meant(before))
    assert isinstance(job, TrainJob)
    assert (recipe_for(job).size, recipe_for(job).mean) == (None, (0.485, 0.456, 0.406))
    assert as_it_was_meant({"kind": "search", "base": before})["base"]["model"]["preprocessing"] == {"resize": "squash"}
    for present in (
        job_of(model__weights="pretrained", model__name="resnet18"),
        job_of(),
        job_of(model__weights="run:a"),
    ):
        assert as_it_was_meant(to_dict(present)) == to_dict(present)


def test_weights_that_want_127_and_128_get_them_in_one_line_of_the_job(tmp_path: Path) -> None:
    weights_file(tmp_path)
    (tmp_path / "job.yaml").write_text(
        "model: {name: small_cnn, width: 8, weights: net.safetensors, "
        "preprocessing: {mean: 127, std: 128, range: [0, 255]}}\n"
    )
    plan = Plan.make(load(tmp_path / "job.yaml"), synthetic())  # type: ignore[arg-type]
    values = torch.tensor([0, 127, 255], dtype=torch.uint8).reshape(1, 1, 1, 3).expand(1, 3, 2, 3)
    assert plan.inputs(values)[0, 0, 0].tolist() == pytest.approx([-127 / 128, 0, 1], abs=1e-6)


def test_a_run_without_weights_measures_its_own_rows_and_says_nothing() -> None:
    plan = plan_of()
    assert plan.preprocess == Preprocess.fit(plan.splits.train)
    recipe = recipe_for(plan.job)
    assert not recipe.source
    assert not recipe.guessed
