"""What strategy features does with a trial: a head, trained on features that were computed before it began."""

from __future__ import annotations

import time
from dataclasses import dataclass

from torch import nn

from lehr.job.transfer import FeaturesSection
from lehr.models import head_of
from lehr.runs import Folder, Recorder, RunFolder, begin_attempt, write_model
from lehr.training.group import Group
from lehr.training.setup import Plan
from lehr.training.stopping import Best
from lehr.transfer.features import read, splits_of
from lehr.transfer.heads import evaluate, search
from lehr.trials import TrialCallbacks


@dataclass(frozen=True)
class HeadWork:
    """A trial's work. Its run ends with one epoch, the model, and `search.json` with what was tried.

    Attributes:
        section: how the head is trained.
        parent: URI of the run folder that holds the features.
        seconds_per_image: what computing one image's features took.
    """

    section: FeaturesSection
    parent: str
    seconds_per_image: float

    def __call__(self, plan: Plan, run: RunFolder, group: Group, hooks: TrialCallbacks) -> None:
        """Searches rate and weight decay, and writes the network with the best head as the run's model."""
        if not group.first:
            return
        began = time.perf_counter()
        recorder = Recorder(run.folder, begin_attempt(run.folder, workers=1, checkpoint=None))
        parent = Folder.at(self.parent)
        features = {split: read(parent, split).of(getattr(plan.splits, split).ids) for split in splits_of(plan)}
        metric = plan.job.train.metric.removeprefix("averaged_").removeprefix("validation_")
        found = search(features["train"], features["validation"], plan.task, self.section, metric, plan.job.seed)
        head = found.heads.module(found.chosen)
        measured = {
            f"{split}_{name}": value
            for split in ("validation", *(["test"] if "test" in features else []))
            for name, value in evaluate(head, features[split], plan.task).items()
        }
        train = evaluate(head, features["train"].of(features["train"].ids, augmented=False), plan.task)
        seconds = time.perf_counter() - began
        images = len(features["train"]) + len(features["validation"])
        total = seconds + images * self.seconds_per_image
        rate, decay = found.grid[found.chosen]
        steps = self.section.steps
        recorder.write_steps(
            {
                "step": found.steps,
                "epoch": [step / steps for step in found.steps],
                "loss": found.losses,
                "examples": [min(self.section.batch_size, len(features["train"]))] * len(found.steps),
            }
        )
        row = {f"validation_{name}": measured[f"validation_{name}"] for name in plan.task.metric_names}
        row |= {f"clean_train_{name}": value for name, value in train.items()}
        measures: dict[str, float] = {"epoch": 1, "step": steps, "train_loss": found.losses[-1], "learning_rate": rate}
        recorder.write_epochs({name: [value] for name, value in {**measures, "seconds": total, **row}.items()})
        message = f"head trained with rate {rate:g} and weight decay {decay:g}, chosen by {found.by}"
        recorder.event("finished", message, step=steps)
        best = Best(f"validation_{metric}").update(measured[f"validation_{metric}"], steps, 1)
        self._write_model(plan, run, head, measured, best)
        run.folder.write_json(
            "search.json",
            {
                "by": found.by,
                "tried": [
                    {"learning_rate": one, "weight_decay": two, metric: abs(score), "loss": -loss}
                    for (one, two), (score, loss) in zip(found.grid, found.scores, strict=True)
                ],
                "seconds": {"features": images * self.seconds_per_image, "head": seconds},
            },
        )
        run.write_progress(
            {
                "status": "finished", "message": message, "attempt": recorder.attempt.number, "workers": 1,
                "step": steps, "total_steps": steps, "epoch": 1.0, "epochs": 1, "epochs_done": 1,
                "loss": found.losses[-1], "learning_rate": rate, "metrics": row | measured, "best": best.to_dict(),
                "diagnosis": {}, "examples_per_second": None, "seconds_left": 0.0, "seconds": {"total": total},
                "updated": time.time(),
            }
        )  # fmt: skip
        hooks.after_epoch({"epoch": 1, "step": steps, **row})

    def _write_model(self, plan: Plan, run: RunFolder, head: nn.Module, metrics: dict[str, float], best: Best) -> None:
        model = plan.build_model()
        name = head_of(model, plan.task.outputs)
        model.set_submodule(name, head.to(plan.dtype))
        about = {"step": best.step, "epoch": best.epoch, "weights": "raw"}
        description = {**plan.describe_model(), "from": about, "metrics": metrics}
        if self.section.hidden:
            description["model"] = {**description["model"], "hidden": self.section.hidden}
        write_model(run.folder, model.state_dict(), description)
