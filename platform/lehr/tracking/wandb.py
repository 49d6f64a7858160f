"""Weights & Biases: a run of the project that WANDB_PROJECT names; WANDB_MODE=offline writes to a folder."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lehr.tracking.sink import Described, Row

PROJECT = "lehr"


def open_sink(described: Described, known: str, folder: Path | None) -> Wandb:
    return Wandb(described, known)


class Wandb:
    def __init__(self, described: Described, known: str) -> None:
        import wandb

        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            name=described.name,
            id=known or secrets.token_hex(4),
            resume="allow",
            group=described.group,
            job_type=described.kind,
            notes=described.notes or None,
            config={**described.parameters, "lehr.folder": described.folder},
            reinit="create_new",  # a search has many runs in one process
            settings=wandb.Settings(console="off", silent=True, x_disable_stats=True, save_code=False),
        )
        self._name = described.name
        self.id = str(self._run.id)
        # Its own steps may only grow; ours begin again below a checkpoint, and epochs come after their steps.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def log(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self._run.log({**row.values, "step": row.step})

    def attach(self, path: Path) -> None:
        self._run.save(str(path), base_path=str(path.parent), policy="end")

    def end(self, status: str, summary: Mapping[str, float]) -> None:
        self._run.summary.update({f"best/{name}": value for name, value in summary.items()} | {"status": status})
        self._run.finish(exit_code=0 if status == "finished" else 1)
