"""The measurements of steps 1 to 3 are the same whatever the number of workers."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from tests.support import tiny

from lehr.data.load import OpenedSources, splits
from lehr.job import TrainJob, from_dict, to_dict
from lehr.recipe.initial import InitialCheck, check_initial_loss
from lehr.recipe.overfit import OverfitCheck, overfit_sample
from lehr.recipe.rates import RateTest, run_range_test, run_rate_test
from lehr.recipe.results import Result
from lehr.runs import Folder, RunFolder
from lehr.training.group import Group
from lehr.training.setup import Plan
from lehr.trials import TrialCallbacks
from lehr.trials.trainable import Trainable

R = TypeVar("R", bound=Result)

MEASUREMENTS: dict[str, Trainable] = {
    "initial": check_initial_loss,
    "overfit": overfit_sample,
    "rate": partial(run_rate_test, epochs=2.4),  # 21 steps an epoch
    "range": partial(run_range_test, epochs=2.4),
}
JOB = tiny(train__precision="fp64", train__epochs=1, train__batch_size=16, data__augment=[])


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The run folders of all measurements, by 1 and 2 workers."""
    found = {}
    for workers in (1, 2):
        found[workers] = tmp_path_factory.mktemp(f"workers-{workers}")
        for name in MEASUREMENTS:
            RunFolder.create(Folder.at(found[workers] / name), to_dict(JOB))
        if workers == 1:
            measure(Group(), found[workers])
            continue
        context = mp.get_context("forkserver")
        context.set_forkserver_preload(["torch._dynamo", "torch.distributed", "lehr.training.loop", "lehr.data.load"])
        processes = [context.Process(target=work, args=(rank, workers, found[workers])) for rank in range(workers)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(timeout=120)
            assert process.exitcode == 0
    return found


def work(rank: int, workers: int, place: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{place}/met", rank=rank, world_size=workers)
    measure(Group(rank, workers), place)
    dist.destroy_process_group()


def measure(group: Group, place: Path) -> None:
    job = from_dict(to_dict(JOB))
    assert isinstance(job, TrainJob)
    plan = Plan.make(job, splits(job, OpenedSources(job).decode()))
    for name, what in MEASUREMENTS.items():
        what(plan, RunFolder.open(place / name), group, TrialCallbacks(lambda: None, lambda row: None))


def both(measured: dict[int, Path], cls: type[R], name: str) -> tuple[R, R]:
    one, two = (cls.read(Folder.at(measured[workers] / name)) for workers in (1, 2))
    return one, two


def test_the_initial_loss_is_the_same(measured: dict[int, Path]) -> None:
    one, two = both(measured, InitialCheck, "initial")
    assert (one.loss, one.accuracy) == pytest.approx((two.loss, two.accuracy), abs=1e-9)
    assert (one.rows, one.layers, one.unreached) == (two.rows, two.layers, two.unreached)


def test_the_attempts_to_memorise_the_sample_are_the_same(measured: dict[int, Path]) -> None:
    one, two = both(measured, OverfitCheck, "overfit")
    assert one.counts == two.counts
    assert one.validation_accuracy == pytest.approx(two.validation_accuracy)
    assert [a.accuracies for a in one.attempts] == [a.accuracies for a in two.attempts]
    assert one.last.losses == pytest.approx(two.last.losses, abs=1e-9)


@pytest.mark.parametrize("name", ["rate", "range"])
def test_the_losses_of_a_rate_test_are_the_same(measured: dict[int, Path], name: str) -> None:
    one, two = both(measured, RateTest, name)
    assert len(one.losses) == 50
    assert one.rates == two.rates
    assert one.losses == pytest.approx(two.losses, abs=1e-9)
    assert one.guess == two.guess
    assert one.is_range_test is (name == "range")
