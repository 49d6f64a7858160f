"""Probes name causes that several findings have in common. Small networks, some hundred digits, no Ray."""

from __future__ import annotations

import dataclasses
import sys
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lehr import trust
from lehr.curves.alternatives import ProbeName
from lehr.data.dataset import Images, Splits
from lehr.data.load import OpenedSources, splits
from lehr.job import TrainJob, from_dict, to_dict
from lehr.probes import Budget, Evidence, ProbeResult, Subject, conclude, of_fresh, of_trained, probe
from lehr.probes.run import plan_steps
from lehr.probes.subject import look
from lehr.runs import Folder, RunFolder, read_model
from lehr.training.group import Group
from lehr.training.loop import train
from lehr.training.setup import Plan

JOB: dict[str, Any] = {
    "data": {"source": "digits", "limit": 600},
    "model": {"name": "small_cnn", "width": 8},
    "optimizer": {"name": "adam", "lr": 0.01},
    "train": {"epochs": 3, "batch_size": 32, "checkpoint": {"every": "100%"}},
}


class Net(nn.Module):
    """A perceptron whose faults no job names: dropout, a body that is not trained, batch norm that lags behind."""

    def __init__(
        self, channels: int, outputs: int, *, hidden: float = 0.0, detached: bool = False, lag: float = 0.0
    ) -> None:
        super().__init__()
        norm = [nn.BatchNorm1d(64, momentum=lag)] if lag else []
        drop = [nn.Dropout(hidden)] if hidden else []
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64 * channels, 64), *norm, nn.ReLU(), *drop)
        self.head, self.detached = nn.Linear(64, outputs), detached

    def forward(self, images: Tensor) -> Tensor:
        features = self.body(images)
        outputs: Tensor = self.head(features.detach() if self.detached else features)
        return outputs


@pytest.fixture(autouse=True)
def module() -> Iterator[None]:
    sys.modules["probed"] = made = types.ModuleType("probed")
    made.Net = Net  # type: ignore[attr-defined]
    yield
    del sys.modules["probed"]


def job(**overrides: Any) -> TrainJob:
    found = from_dict(JOB, {path.replace("__", "."): value for path, value in overrides.items()})
    assert isinstance(found, TrainJob)
    trust.give(to_dict(found))
    return found


def subject(tmp_path: Any = None, epochs: float = 30, change: Any = None, **overrides: Any) -> Subject:
    """A run and its rows; trained where there is a folder for it."""
    torch.set_num_threads(1)
    made = job(**overrides)
    rows = splits(made, OpenedSources(made).decode())
    rows = change(rows) if change else rows
    network = None
    if tmp_path:
        run = RunFolder.create(Folder.at(tmp_path / "run"), to_dict(made))
        train(Plan.make(made, rows), run, Group())
        network = Plan.make(made, rows).build_model()
        network.load_state_dict(read_model(run.folder)[0])
    return Subject(made, rows, Budget(epochs * len(rows.train)), network, steps=40)


def weight(result: ProbeResult, cause: str) -> float:
    return sum(each.weight for each in result.evidence if each.cause == cause)


def relabelled(rows: Any, labels: np.ndarray) -> Any:
    pixels = rows.gather(torch.arange(len(rows))).inputs.permute(0, 2, 3, 1).contiguous().numpy()
    return Images(pixels, labels, rows.classes).rows(torch.arange(len(labels)))


def shuffled(rows: Splits) -> Splits:
    draw = np.random.default_rng(0)
    return Splits(*(relabelled(each, draw.permutation(each.labels.numpy())) for each in (rows.train, rows.validation)))


def shifted(rows: Splits) -> Splits:
    return dataclasses.replace(rows, validation=relabelled(rows.validation, (rows.validation.labels.numpy() + 3) % 10))


def test_weights_that_did_not_move_are_seen_though_they_require_a_gradient(tmp_path: Any) -> None:
    found = of_trained.weights(subject(tmp_path, model="probed:Net", model__detached=True, train__epochs=1))
    assert "4,160 of 4,810 weights, in 2 of 4 tensors, are as they were at first" in found.measured
    assert weight(found, "frozen") > 1
    assert weight(of_trained.weights(subject(tmp_path / "sound", train__epochs=1)), "frozen") < 0


def test_statistics_that_lag_are_told_from_a_network_that_learned_nothing(tmp_path: Any) -> None:
    s = subject(tmp_path, model="probed:Net", model__lag=0.1)
    assert weight(of_trained.statistics(s), "stale_statistics") < 0
    s = dataclasses.replace(s, _looks={})
    for name, value in s.network.named_buffers() if s.network else ():
        if name.endswith("running_mean"):
            value.sub_(3.0)  # as they were many updates ago
    before = {name: value.clone() for name, value in s.network.state_dict().items()} if s.network else {}
    found = of_trained.statistics(s)
    assert weight(found, "stale_statistics") > 1, found.measured
    assert s.network
    assert all(torch.equal(value, before[name]) for name, value in s.network.state_dict().items())


def test_dropout_that_no_job_names_is_found_by_leaving_it_out(tmp_path: Any) -> None:
    s = subject(tmp_path, model="probed:Net", model__hidden=0.97, train__epochs=1)
    found = of_fresh.parts(s)
    assert weight(found, "dropout") > 0.5, found.measured
    assert conclude([found, of_trained.clean(s)], ["dropout"]).cause == "dropout"


@pytest.mark.parametrize(
    ("change", "cause", "mended"),
    [
        (
            {"train__max_gradient_norm": 1e-5, "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9}},
            "clipping",
            "lehr run JOB train.max_gradient_norm=null",
        ),
        (
            {"optimizer": {"name": "adamw", "lr": 0.01, "weight_decay": 90.0}},
            "weight_decay",
            "lehr run JOB optimizer.weight_decay=0.9",
        ),
    ],
)
def test_what_holds_back_is_found_by_leaving_it_out(change: dict[str, Any], cause: str, mended: str) -> None:
    found = of_fresh.parts(subject(model="probed:Net", **change))
    said = conclude([found], [])
    assert (said.cause, said.rerun) == (cause, mended), found.measured


def test_a_rate_that_is_far_too_low_is_found_by_short_trainings() -> None:
    found = of_fresh.rates(subject(model="probed:Net", optimizer__lr=1e-5))
    assert conclude([found], []).cause == "rate_too_low", found.measured
    assert conclude([found], []).overrides == {"optimizer.lr": 0.001}
    sound = of_fresh.rates(subject(model="probed:Net"))
    assert weight(sound, "rate_too_low") < 0, sound.measured


def test_a_schedule_that_ends_too_early_is_told_from_a_low_rate(tmp_path: Any) -> None:
    early = {"name": "step", "milestones": ["3%"], "gamma": 0.0001}
    found = of_fresh.rates(subject(tmp_path, model="probed:Net", schedule=early))
    assert conclude([found], []).cause == "schedule", found.measured


def test_shuffled_labels_are_told_from_a_split_that_differs() -> None:
    for change, learned, cause in ((shuffled, 0.6, "labels"), (shuffled, 0.1, None), (shifted, 0.9, "split")):
        s = dataclasses.replace(subject(change=change, model="probed:Net"), fitted_at=learned)
        results = [of_trained.linear(s), of_fresh.labels(s)]
        assert conclude(results, []).cause == cause, [each.measured for each in results]


def test_one_batch_tells_a_network_that_learns_from_one_that_does_not() -> None:
    found = of_fresh.overfit(subject(model="probed:Net"))
    assert weight(found, "network") < 0, found.measured
    silent = of_fresh.overfit(subject(model="probed:Net", model__detached=True, optimizer__lr=1e-9))
    assert "memorise" in silent.measured


# ── the budget ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("epochs", [0.1, 1, 3, 8, 40])
def test_probes_never_cost_more_than_the_budget_and_name_what_they_left_out(tmp_path: Any, epochs: float) -> None:
    s = subject(tmp_path, epochs, model="probed:Net", model__hidden=0.9, train__epochs=1)
    asked: tuple[ProbeName, ...] = ("clean", "parts", "rates", "labels", "overfit")
    results = list(probe(s, asked))
    assert s.budget.spent <= s.budget.rows
    assert sum(each.epochs for each in results) == pytest.approx(s.epochs(s.budget.spent))
    assert sorted(each.name for each in results) == sorted(asked)
    assert all(each.left_out == (not each.evidence) for each in results)
    assert all(each.measured.startswith(("The budget", "Not needed")) for each in results if each.left_out)
    assert epochs > 3 or any(each.left_out for each in results)


def test_time_that_is_up_leaves_probes_out() -> None:
    s = subject(model="probed:Net")
    s.budget.seconds = 0.0
    assert [each.left_out for each in probe(s, ["rates", "parts"])] == [True, True]
    assert s.budget.spent == 0


def test_short_trainings_are_longer_where_the_budget_is_larger() -> None:
    s = subject(epochs=12, model="probed:Net", train__epochs=20)
    plan_steps(s, ["rates"])
    few = s.steps
    s.budget.rows *= 2
    assert plan_steps(s, ["rates"]) == (["rates"], [])
    assert s.steps > few >= 30


def test_a_short_training_may_be_longer_than_the_rows_are(tmp_path: Any) -> None:
    s = subject(tmp_path, 400, model="probed:Net", data__limit=60, train__batch_size=64, optimizer__lr=1e-6)
    results = list(probe(s, ["overfit", "labels", "rates"]))
    assert [each.name for each in results if not each.left_out] == ["overfit", "labels", "rates"]
    assert "rate_too_low" in [each.cause for result in results for each in result.evidence if each.weight > 0]


def test_probes_are_the_same_each_time() -> None:
    one, other = (of_fresh.rates(subject(model="probed:Net", model__hidden=0.5)).measured for _ in range(2))
    assert one == other


def test_a_look_leaves_no_trace(tmp_path: Any) -> None:
    s = subject(model="probed:Net", model__lag=0.1, model__hidden=0.5)
    model = s.plan.build_model().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    look(model, s.plan, s.fitted, s.group, batch_statistics=True, dropout=True)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(each.training for each in model.modules())


# ── the conclusion ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_evidence_of_several_probes_adds_up_and_little_names_no_cause() -> None:
    hints = [
        ProbeResult("linear", "A", (Evidence("labels", 0.3),)),
        ProbeResult("labels", "B", (Evidence("labels", 0.4),)),
    ]
    assert conclude(hints[:1], ["labels", "split"]).cause is None
    assert conclude(hints[:1], ["labels", "split"]).untold == ("split",)
    said = conclude(hints, ["labels"])
    assert (said.cause, said.why) == ("labels", ("A", "B"))
    against = ProbeResult("overfit", "C", (Evidence("labels", -1.0),))
    assert conclude([*hints, against], []).ruled_out == ("labels",)
