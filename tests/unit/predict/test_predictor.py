"""One network or several, from pixels to probabilities: the same however it is called, stored or exported."""

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
from lehr.predict import load_network, load_predictor, write_ensemble
from lehr.predict.export import export_onnx, export_torch
from lehr.runs import RunFolder

Make = Callable[..., RunFolder]
PIXELS = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 1), dtype=np.uint8)


def planes() -> torch.Tensor:
    return torch.from_numpy(PIXELS).permute(0, 3, 1, 2)


@pytest.mark.parametrize("by", ["probabilities", "logits"])
def test_an_ensemble_says_what_the_formula_says_of_its_members(by: Any, ensemble: Make) -> None:
    run = ensemble((1.0, 2.0, 1.0), by)
    alone = []
    for number in (1, 2, 3):
        network = load_network(run.folder.child(f"members/{number:02}"))
        normalised = network.preprocess(planes(), torch.float32)
        alone.append(network.model(normalised).detach().numpy())
    expected = combine(np.stack(alone), np.array([1.0, 2.0, 1.0]), by)
    np.testing.assert_allclose(Run(run).predict(PIXELS), expected, atol=1e-6)
    assert Run(run).classes == [str(number) for number in range(10)]


def test_members_without_weight_are_neither_loaded_nor_heard(ensemble: Make) -> None:
    run = ensemble((0.0, 0.0, 1.0))
    assert load_predictor(run.folder).names == ("03",)
    assert load_predictor(run.folder, unused=True).names == ("01", "02", "03")
    third = Run(run.folder.child("members/03").uri).predict(PIXELS)
    np.testing.assert_allclose(Run(run).predict(PIXELS), third, atol=1e-7)


def test_arrays_paths_and_pil_images_give_the_same(trained: RunFolder, ensemble: Make, tmp_path: Path) -> None:
    Image.fromarray(PIXELS[0, :, :, 0]).save(tmp_path / "digit.png")
    for run in (Run(trained), Run(ensemble())):
        expected = run.predict(PIXELS)[0]
        forms = [tmp_path / "digit.png", Image.fromarray(PIXELS[0, :, :, 0]), PIXELS[0], PIXELS[0, :, :, 0]]
        for form in (*forms, forms):
            for row in run.predict(form):
                np.testing.assert_allclose(row, expected, atol=1e-6)
        assert run.predict([]).shape == (0, 10)
    with pytest.raises(LehrError, match="a float is not an image"):
        run.predict([1.0])


def test_an_ensemble_has_no_single_best_model(ensemble: Make, trained: RunFolder) -> None:
    assert Run(trained).best_model()(torch.zeros(1, 1, 8, 8)).shape == (1, 10)
    with pytest.raises(RunError, match="is an ensemble of several networks"):
        Run(ensemble()).best_model()


def test_members_that_do_not_fit_together_are_refused(ensemble: Make, tmp_path: Path) -> None:
    run = ensemble()
    make_run(run.folder.local_path / "members/04", classes=4)
    write_ensemble(run.folder, "logits", "equal", [("members/01", 1.0), ("members/04", 1.0)])
    with pytest.raises(RunError, match="04 knows other classes or takes other images than 01"):
        load_predictor(run.folder)


def test_an_ensemble_of_a_newer_format_is_refused(ensemble: Make) -> None:
    run = ensemble()
    run.folder.write_json("ensemble.json", run.folder.read_json("ensemble.json") | {"format": 2})
    with pytest.raises(RunError, match="has format 2, this lehr reads 1"):
        load_predictor(run.folder)


def test_the_identity_changes_with_weights_and_members(ensemble: Make) -> None:
    one = load_predictor(ensemble().folder).identity
    run = ensemble(by="logits")
    assert load_predictor(run.folder).identity != one
    before = load_predictor(run.folder).identity
    write_ensemble(run.folder, "logits", "equal", [("members/01", 1.0), ("members/02", 1.0)])
    assert load_predictor(run.folder).identity != before


# ── export ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_exported_program_computes_what_the_ensemble_computes(ensemble: Make, tmp_path: Path) -> None:
    run = ensemble()
    done = export_torch(load_predictor(run.folder), planes(), tmp_path / "model.pt2")
    assert done.difference < 1e-5
    program = torch.export.load(done.path).module()
    for rows in (1, 4, 7):
        expected = Run(run).predict(PIXELS[:rows])
        np.testing.assert_allclose(program(planes()[:rows]).detach().numpy(), expected, atol=1e-5)


def test_onnx_computes_what_the_ensemble_computes(ensemble: Make, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    run = ensemble(by="logits")
    done = export_onnx(load_predictor(run.folder), planes(), tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(done.path), providers=["CPUExecutionProvider"])
    for rows in (1, 4, 7):
        (found,) = session.run(["probabilities"], {"pixels": planes()[:rows].numpy()})
        np.testing.assert_allclose(found, Run(run).predict(PIXELS[:rows]), atol=1e-5)


def test_an_export_that_computes_something_else_is_removed(trained: RunFolder, tmp_path: Path) -> None:
    predictor = load_predictor(trained.folder)
    original = predictor.forward

    def moody(pixels: torch.Tensor) -> torch.Tensor:  # torch.export keeps what it was when it was traced
        return original(pixels) if torch.compiler.is_compiling() else original(pixels).flip(1)

    predictor.forward = moody  # type: ignore[method-assign]
    with pytest.raises(LehrError, match=r"model.pt2: what was exported computes other probabilities than the run"):
        export_torch(predictor, planes(), tmp_path / "model.pt2")
    assert not (tmp_path / "model.pt2").exists()


def test_without_onnx_one_sentence_says_what_to_install(
    trained: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "onnx":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(LehrError, match=r"pip install 'lehr\[onnx\]'"):
        export_onnx(load_predictor(trained.folder), planes(), tmp_path / "model.onnx")
