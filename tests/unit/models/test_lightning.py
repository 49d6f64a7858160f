"""A LightningModule is trained by its own steps and optimizer, alike on any number of workers, or refused by name."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support import Died, largest_difference, records, train_here, weights

from lehr.data.dataset import DataSubset, Images, Splits
from lehr.errors import JobError, LehrError
from lehr.job import from_dict, to_dict
from lehr.models.lightning import Trainer
from lehr.models.vision import with_torchvision
from lehr.own_code import OwnCodeError
from lehr.runs import Folder, RunFolder
from lehr.training.group import Group
from lehr.training.loop import train
from lehr.training.setup import Plan, check_job
from lehr.trust import give

needs_lightning = pytest.mark.skipif(
    not importlib.util.find_spec("lightning"), reason="lightning is not installed: pip install 'lehr[lightning]'"
)


@pytest.fixture(autouse=True)
def _example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    shutil.copy(Path(__file__).with_name("lightning_example.py"), tmp_path / "lit_example.py")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    yield
    sys.modules.pop("lit_example", None)


def job_of(model: Any = "lit_example:Classifier", **overrides: Any) -> Any:
    base = {
        "data": {"source": "digits", "limit": 150},
        "model": model,
        "train": {"epochs": 3, "batch_size": 32, "evaluated_training_rows": 0},
    }
    job = from_dict(base, overrides={path.replace("__", "."): value for path, value in overrides.items()})
    give(to_dict(job))
    return job


def plan_of(model: Any, **overrides: Any) -> Plan:
    job = job_of(model, **overrides)
    check_job(job)
    random = np.random.default_rng(0)
    pixels, labels = random.integers(0, 256, (60, 8, 8, 1), dtype=np.uint8), np.arange(60) % 10
    images, rows = Images(pixels, labels, tuple("abcdefghij")), torch.arange(60)
    return Plan.make(job, Splits(DataSubset(images, rows[20:]), DataSubset(images, rows[:20])))


def _allow() -> None:
    from lehr import trust

    trust.is_allowed = lambda call: True


def _die_late() -> None:
    """Ends the process in the third epoch, once."""
    from lehr.training.train_step import TrainStep

    _allow()
    take = TrainStep.__call__

    def taking(self: TrainStep, batch: Any, rows: int, step: int) -> Any:
        if step == 9 and not Path("died").exists():
            Path("died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return take(self, batch, rows, step)

    TrainStep.__call__ = taking  # type: ignore[method-assign]


@needs_lightning
@pytest.mark.parametrize("schedule", ["cycle", "epoch"])
def test_one_and_two_workers_train_the_same_and_a_killed_run_goes_on_exactly(schedule: str, tmp_path: Path) -> None:
    model = {"name": "lit_example:Classifier", "schedule": schedule, "dropout": 0.0}
    job = job_of(model, train__precision="fp64", train__metric="validation_val_loss")
    one = train_here(job, tmp_path / "one", 1, prepare=_allow)
    two = train_here(job, tmp_path / "two", 2, prepare=_allow)
    assert largest_difference(records(one)[0], records(two)[0]) < 1e-12
    assert largest_difference(records(one)[1], records(two)[1]) < 1e-7  # it computes the share of hits in float32
    assert all(torch.allclose(value, weights(two)[name], rtol=0, atol=1e-12) for name, value in weights(one).items())
    with pytest.raises(Died):
        train_here(job, tmp_path / "killed", 1, prepare=_die_late)
    killed = train_here(job, tmp_path / "killed", 1, prepare=_die_late)
    assert records(killed)[0].equals(records(one)[0])
    assert records(killed)[1].equals(records(one)[1])
    assert all(torch.equal(value, weights(killed)[name]) for name, value in weights(one).items())


@needs_lightning
@pytest.mark.parametrize("schedule", ["none", "cycle", "epoch"])
def test_it_trains_as_a_plain_loop_over_its_own_steps_would(schedule: str, tmp_path: Path) -> None:
    """To the last digit: the same batches through training_step, one optimizer step each, the scheduler stepped."""
    example = with_torchvision(lambda: importlib.import_module("lit_example"))
    plan = plan_of({"name": "lit_example:Classifier", "schedule": schedule}, train__precision="fp64")
    run = RunFolder.create(Folder.at(tmp_path / "run"), to_dict(plan.job))
    train(plan, run, Group())

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.job.seed)
        module = example.Classifier(schedule=schedule).double()
    module._trainer = Trainer(plan.length, 0, 1)
    module.log = module.log_dict = lambda *_, **__: None
    found = module.configure_optimizers()
    optimizer = found["optimizer"] if isinstance(found, dict) else found[0][0] if isinstance(found, tuple) else found
    each_step = found["lr_scheduler"]["scheduler"] if isinstance(found, dict) else None
    each_epoch = found[1][0] if isinstance(found, tuple) else None
    losses, rates = [], []
    for epoch in range(3):
        for index in range(plan.sampler.steps):
            batch = _batch(plan, epoch, index)
            module._trainer.stage, module._trainer.step = "train", epoch * plan.sampler.steps + index
            loss = module.training_step((plan.inputs(batch.inputs), batch.targets), index)["loss"]
            rates.append(optimizer.param_groups[0]["lr"])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
            if each_step:
                each_step.step()
        if each_epoch:
            each_epoch.step()
    steps = run.steps()
    assert steps["learning_rate"].to_pylist() == rates
    assert steps["loss"].to_pylist() == pytest.approx(losses, rel=1e-13)


def _batch(plan: Plan, epoch: int, index: int) -> Any:
    from lehr.data.batches import batches

    found = batches(plan.splits.train, plan.sampler, plan.augment, epoch, index, 0, 1, torch.device("cpu"))
    return next(iter(found))


@needs_lightning
def test_what_it_logs_is_a_mean_over_rows_and_can_choose_the_model(tmp_path: Path) -> None:
    plan = plan_of("lit_example:Classifier", train__metric="validation_val_hits", train__batch_size=7)
    run = RunFolder.create(Folder.at(tmp_path / "run"), to_dict(plan.job))
    train(plan, run, Group())
    for row in run.epochs().to_pylist():
        assert row["validation_val_loss"] == pytest.approx(row["validation_loss"], rel=1e-5)
        assert row["validation_val_hits"] == pytest.approx(row["validation_accuracy"], rel=1e-6)
    assert run.progress().best.metric == "validation_val_hits"
    told = [event["message"] for event in run.events() if event["kind"] == "note"]
    assert "Classifier configures its own optimizer: SGD, lr 0.01" in told
    assert "training_step logs train_loss; lehr records the loss of every step itself, and nothing else of it" in told


@needs_lightning
def test_without_an_optimizer_of_its_own_the_jobs_trains_it(tmp_path: Path) -> None:
    plan = plan_of("lit_example:Plain", optimizer__lr=0.03, schedule="cosine")
    run = RunFolder.create(Folder.at(tmp_path / "run"), to_dict(plan.job))
    train(plan, run, Group())
    assert run.steps()["learning_rate"].to_pylist()[0] == 0.03


@needs_lightning
@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("Manual", "automatic_optimization = False; lehr takes the optimizer's steps"),
        ("Several", "configure_optimizers returns 2 optimizers; allowed: one"),
        ("Plateau", "ReduceLROnPlateau, which depends on a metric"),
        ("Frequent", "interval epoch and frequency 3; allowed: interval step or epoch, frequency 1"),
        ("Short", "its scheduler takes 4 steps, and the run 6"),
        ("NoOptimizer", "configure_optimizers returns a NoneType; allowed: one torch.optim.Optimizer"),
        ("NoLoss", "training_step returns nothing; allowed: the loss"),
        ("Rows", r"training_step returns \[4\] as its loss; allowed: a tensor of one number"),
        ("Detached", "training_step returns what has no gradient"),
        ("OwnData", r"defines train_dataloader, which lehr does not call \(the job's section data"),
        ("EpochEnd", "defines on_validation_epoch_end, which lehr does not call"),
        ("Remembers", "changes self.seen in a step, which no checkpoint holds; allowed: a buffer"),
        ("Logger", "asks for trainer.logger, which lehr does not have; it has current_epoch"),
        ("Raises", r"Raises.training_step failed: ValueError: .*lit_example.py.*inputs: float32 \[4, 1, 8, 8\]"),
        ("Embedding", r"returns \[2, 3\] for 2 images; allowed: \[2, 10\], a logit for each class"),
        ("LogsRange", "logs range with reduce_fx=max; allowed: mean, over rows"),
        ("LogsMaximum", "logs range, which is no mean over the rows of its batch"),
        ("LogsOurName", "logs loss, a name that lehr itself records"),
        ("NoForward", "defines no forward"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(model: str, sentence: str) -> None:
    with pytest.raises((JobError, OwnCodeError), match=sentence):
        plan_of(f"lit_example:{model}")


@needs_lightning
@pytest.mark.parametrize(
    ("section", "overrides"),
    [
        ("optimizer", {"optimizer": {"name": "adam"}}),
        ("optimizer", {"optimizer__lr": 0.5}),
        ("optimizer", {"optimizer": {"name": "sgd"}}),  # the default, but said
        ("schedule", {"schedule": "cosine"}),
        ("loss", {"loss__label_smoothing": 0.1}),
        ("train.compile", {"train__compile": True}),
    ],
)
def test_what_the_module_decides_is_not_said_by_the_job_too(section: str, overrides: dict[str, Any]) -> None:
    with pytest.raises(JobError, match="Classifier") as refused:
        plan_of("lit_example:Classifier", **overrides)
    assert refused.value.field == section
    with pytest.raises(JobError, match="Classifier"):
        plan_of("lit_example:made", **overrides)


@needs_lightning
def test_a_job_read_back_from_its_run_is_not_refused() -> None:
    job = from_dict(to_dict(job_of()))
    check_job(job)  # type: ignore[arg-type]


@needs_lightning
def test_a_loss_that_is_no_mean_over_rows_is_trained_by_one_worker_alone(tmp_path: Path) -> None:
    plan = plan_of("lit_example:Summed", optimizer__lr=0.001)
    train(plan, RunFolder.create(Folder.at(tmp_path / "run"), to_dict(plan.job)), Group())
    parts = plan_of("lit_example:Summed", train__gradient_accumulation=2)
    with pytest.raises(LehrError, match="a loss that is no mean over rows, so 2 parts of each batch would change it"):
        train(parts, RunFolder.create(Folder.at(tmp_path / "parts"), to_dict(parts.job)), Group())


def test_without_the_library_one_sentence_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "needs_it.py").write_text("import not_lightning\n")
    with pytest.raises(LehrError, match=r"needs_it:Net imports not_lightning, which is not there at .*needs_it.py:1"):
        check_job(job_of("needs_it:Net"))
