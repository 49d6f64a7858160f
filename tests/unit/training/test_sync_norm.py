"""Batch norm over several workers equals nn.BatchNorm over the whole batch, to the last digits of float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lehr.errors import LehrError
from lehr.training.sync_norm import GlobalBatchNorm, has_batch_norm, synchronise_batch_norm

CPU = torch.device("cpu")
ROWS = (7, 8, 3)  # of each step's global batch; with 3 rows one of four workers has none
NETS = {
    "2d": lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.BatchNorm2d(3)
    ),
    "1d": lambda: nn.Sequential(nn.Flatten(), nn.Linear(72, 5), nn.BatchNorm1d(5, momentum=None), nn.Linear(5, 3)),
    "bare": lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4, affine=False, track_running_stats=False)),
}


def run(net: str, rank: int = 0, workers: int = 1) -> dict[str, torch.Tensor]:
    """The state, the outputs in evaluation and the input gradients (of this worker's rows) after three steps."""
    torch.manual_seed(0)
    model: nn.Module = NETS[net]().double()
    if workers > 1:
        names = list(model.state_dict())
        model = synchronise_batch_norm(model, CPU)
        assert list(model.state_dict()) == names
        assert all(not isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d) for m in model.modules())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    parallel = DistributedDataParallel(model, broadcast_buffers=False) if workers > 1 else model
    result: dict[str, torch.Tensor] = {}
    for step, rows in enumerate(ROWS):
        whole = torch.randn(rows, 2, 6, 6, dtype=torch.float64) * 3 + 5
        mine = whole[rank::workers].requires_grad_()
        outputs = parallel(mine)
        weights = torch.linspace(-1, 2, outputs.shape[1:].numel(), dtype=torch.float64).reshape(outputs.shape[1:])
        (outputs.square() * weights).sum().div(rows).mul(workers).backward()
        optimizer.step()
        optimizer.zero_grad()
        assert mine.grad is not None
        result[f"input gradient {step}"] = mine.grad / workers
    result |= {name: value.clone() for name, value in model.state_dict().items()}
    model.eval()
    result["evaluation"] = model(whole).detach()
    return result


def worker(rank: int, workers: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=workers)
    torch.save({net: run(net, rank, workers) for net in NETS}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("workers", [2, 4])
def test_workers_together_compute_what_one_computes(
    workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[3])  # the processes import this module by its name
    mp.get_context("forkserver").set_forkserver_preload(["torch.distributed", "tests.support"])
    mp.start_processes(worker, (workers, str(tmp_path)), nprocs=workers, start_method="forkserver")
    found: list[Any] = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(workers)]
    for net in NETS:
        alone = run(net)
        for rank in range(workers):
            assert found[rank][net].keys() == alone.keys()
            for name, value in found[rank][net].items():
                expected = alone[name][rank::workers] if name.startswith("input") else alone[name]
                torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-12, msg=f"{net}: {name}")


def test_every_batch_norm_is_found_however_deep() -> None:
    norm = nn.BatchNorm2d(4)
    model = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1), norm), nn.GroupNorm(2, 4))
    assert has_batch_norm(model)
    found = synchronise_batch_norm(model, CPU)
    replacement = found.get_submodule("0.1")
    assert isinstance(replacement, GlobalBatchNorm)
    assert replacement.weight is norm.weight
    assert isinstance(found.get_submodule("1"), nn.GroupNorm)
    assert not has_batch_norm(nn.Sequential(nn.GroupNorm(2, 4), nn.InstanceNorm2d(4)))
    assert isinstance(synchronise_batch_norm(nn.BatchNorm1d(4), CPU), GlobalBatchNorm)


def test_a_custom_batch_norm_is_refused() -> None:
    class Odd(nn.BatchNorm2d):
        pass

    with pytest.raises(LehrError, match="Odd is a custom batch norm"):
        synchronise_batch_norm(nn.Sequential(Odd(4)), CPU)
