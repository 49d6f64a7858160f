"""From pixels to probabilities with one network or several: the same results however it is called or exported."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.unit.predict.conftest import make_run

from lehr import Run
from lehr.ensembles import combine
from lehr.errors import LehrError, RunError
from lehr.predict import EnsembleDescription, EnsembleMember, load_network, load_predictor
from lehr.predict.export import export_onnx, export_torch
from lehr.runs import RunFolder

Make = Callable[..., RunFolder]
PIXELS = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 1), dtype=np.uint8)


def planes() -> torch.Tensor:
    return torch.from_numpy(PIXELS).permute(0, 3, 1, 2)


def combine_two(run: RunFolder, first: str, second: str) -> None:
    """Makes the run an ensemble of these two members, with equal weights."""
    members = (EnsembleMember(f"members/{first}", 1.0), EnsembleMember(f"members/{second}", 1.0))
    EnsembleDescription("logits", members, "equal").write(run.folder)


@pytest.mark.parametrize("by", ["probabilities", "logits"])
def test_an_ensemble_predicts_what_the_formula_gives_for_its_members(by: Any, ensemble: Make) -> None:
    run = ensemble((1.0, 2.0, 1.0), by)
    alone = []
    for number in (1, 2, 3):
        network = load_network(run.folder.child(f"members/{number:02}"))
        normalised = network.preprocess(planes(), torch.float32)
        alone.append(network.model(normalised).detach().numpy())
    expected = combine(np.stack(alone), np.array([1.0, 2.0, 1.0]), by)
    np.testing.assert_allclose(Run(run).predict(PIXELS), expected, atol=1e-6)
    assert Run(run).classes == [str(number) for number in range(10)]


def test_members_of_weight_zero_are_not_loaded_and_have_no_influence(ensemble: Make) -> None:
    run = ensemble((0.0, 0.0, 1.0))
    assert load_predictor(run.folder).names == ("03",)
    assert load_predictor(run.folder, all_members=True).names == ("01", "02", "03")
    third = Run(run.folder.child("members/03").uri).predict(PIXELS)
    np.testing.assert_allclose(Run(run).predict(PIXELS), third, atol=1e-7)


def test_arrays_paths_and_pil_images_give_the_same_predictions(
    trained: RunFolder, ensemble: Make, tmp_path: Path
) -> None:
    Image.fromarray(PIXELS[0, :, :, 0]).save(tmp_path / "digit.png")
    for run in (Run(trained), Run(ensemble())):
        expected = run.predict(PIXELS)[0]
        forms = [tmp_path / "digit.png", Image.fromarray(PIXELS[0, :, :, 0]), PIXELS[0], PIXELS[0, :, :, 0]]
        for form in (*forms, forms):
            for row in run.predict(form):
                np.testing.assert_allclose(row, expected, atol=1e-6)
        assert run.predict([]).shape == (0, 10)
    with pytest.raises(LehrError, match="a float is not an image"):
        run.predict([1.0])  # type: ignore[list-item]


def test_an_ensemble_has_no_single_best_model(ensemble: Make, trained: RunFolder) -> None:
    assert Run(trained).best_model()(torch.zeros(1, 1, 8, 8)).shape == (1, 10)
    with pytest.raises(RunError, match="is an ensemble of several networks"):
        Run(ensemble()).best_model()


def test_members_that_do_not_fit_together_are_refused(ensemble: Make, tmp_path: Path) -> None:
    run = ensemble()
    make_run(run.folder.local_path / "members/04", classes=4)
    combine_two(run, "01", "04")
    with pytest.raises(RunError, match="04 has other classes or takes images of another shape than 01"):
        load_predictor(run.folder)


def test_an_ensemble_of_a_newer_format_is_refused(ensemble: Make) -> None:
    run = ensemble()
    run.folder.write_json("ensemble.json", run.folder.read_json("ensemble.json") | {"format": 2})
    with pytest.raises(RunError, match="has format 2, this lehr reads 1"):
        load_predictor(run.folder)


@pytest.mark.parametrize(
    "damage", [{"by": "votes"}, {"members": None}, {"members": [{"run": "members/01"}]}, {"format": None}]
)
def test_a_damaged_ensemble_gets_one_sentence(damage: dict[str, Any], ensemble: Make) -> None:
    run = ensemble()
    run.folder.write_json("ensemble.json", run.folder.read_json("ensemble.json") | damage)
    with pytest.raises(RunError, match=r"ensemble\.json: damaged: it does not describe an ensemble"):
        load_predictor(run.folder)


def test_an_ensemble_is_read_back_as_it_was_written(ensemble: Make) -> None:
    run = ensemble()
    content = run.folder.read_json("ensemble.json")
    assert list(content) == ["format", "by", "selection", "members"]
    EnsembleDescription.read(run.folder).write(run.folder)
    assert run.folder.read_json("ensemble.json") == content
    del content["selection"]  # which is only for display
    run.folder.write_json("ensemble.json", content)
    assert EnsembleDescription.read(run.folder).selection == ""


def test_the_fingerprint_changes_with_weights_and_members(ensemble: Make) -> None:
    one = load_predictor(ensemble().folder).fingerprint
    run = ensemble(by="logits")
    assert load_predictor(run.folder).fingerprint != one
    before = load_predictor(run.folder).fingerprint
    combine_two(run, "01", "02")
    assert load_predictor(run.folder).fingerprint != before


# ── export ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_exported_program_reproduces_the_ensemble(ensemble: Make, tmp_path: Path) -> None:
    run = ensemble()
    done = export_torch(load_predictor(run.folder), planes(), tmp_path / "model.pt2")
    assert done.difference < 1e-5
    program = torch.export.load(done.path).module()
    for rows in (1, 4, 7):
        expected = Run(run).predict(PIXELS[:rows])
        np.testing.assert_allclose(program(planes()[:rows]).detach().numpy(), expected, atol=1e-5)


def test_an_onnx_model_reproduces_the_ensemble(ensemble: Make, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    run = ensemble(by="logits")
    done = export_onnx(load_predictor(run.folder), planes(), tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(done.path), providers=["CPUExecutionProvider"])
    for rows in (1, 4, 7):
        (found,) = session.run(["probabilities"], {"pixels": planes()[:rows].numpy()})
        np.testing.assert_allclose(found, Run(run).predict(PIXELS[:rows]), atol=1e-5)


def test_an_export_that_does_not_reproduce_the_run_is_deleted(trained: RunFolder, tmp_path: Path) -> None:
    predictor = load_predictor(trained.folder)
    original = predictor.forward

    def inconsistent(pixels: torch.Tensor) -> torch.Tensor:  # torch.export keeps what it was when traced
        return original(pixels) if torch.compiler.is_compiling() else original(pixels).flip(1)

    predictor.forward = inconsistent  # type: ignore[method-assign]
    with pytest.raises(LehrError, match=r"model.pt2: the export does not reproduce the run: its probabilities differ"):
        export_torch(predictor, planes(), tmp_path / "model.pt2")
    assert not (tmp_path / "model.pt2").exists()


def test_without_the_onnx_libraries_one_sentence_says_what_to_install(
    trained: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "onnx":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(LehrError, match=r"pip install .*\[onnx\]'"):
        export_onnx(load_predictor(trained.folder), planes(), tmp_path / "model.onnx")
