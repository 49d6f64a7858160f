"""A LightningModule as its documentation teaches to write one, and variations; found by tests as `lit_example`."""

# mypy: allow-untyped-defs

from __future__ import annotations

import lightning
import torch
from torch import nn
from torch.nn import functional as F


class Classifier(lightning.LightningModule):
    """A small network with the three steps, hyperparameters, an optimizer and a schedule of its own."""

    def __init__(self, width: int = 16, rate: float = 0.01, schedule: str = "none", dropout: float = 0.0) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, 10)
        )

    def forward(self, images):
        return self.layers(images)

    def _measure(self, batch, name):
        images, labels = batch
        logits = self(images)
        loss = F.cross_entropy(logits, labels)
        self.log_dict({f"{name}_loss": loss, f"{name}_hits": (logits.argmax(1) == labels).float().mean()})
        return loss

    def training_step(self, batch, batch_idx):
        assert self.trainer.training
        assert self.current_epoch == self.global_step // self.trainer.num_training_batches
        assert batch_idx == self.global_step % self.trainer.num_training_batches
        return {"loss": self._measure(batch, "train")}

    def validation_step(self, batch, batch_idx):
        self._measure(batch, "val")

    def test_step(self, batch):
        self._measure(batch, "test")

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=self.hparams.rate, momentum=0.9)
        if self.hparams.schedule == "cycle":
            steps = self.trainer.estimated_stepping_batches
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=steps)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
        if self.hparams.schedule == "epoch":
            return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)]
        return optimizer


class Plain(lightning.LightningModule):
    """Leaves the optimizer to the job."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(64, outputs)

    def forward(self, images):
        return self.layer(images.flatten(1))

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])


class Manual(Plain):
    def __init__(self, outputs: int) -> None:
        super().__init__(outputs)
        self.automatic_optimization = False


class Several(Plain):
    def configure_optimizers(self):
        return [torch.optim.SGD(self.parameters(), 0.1), torch.optim.Adam(self.parameters())]


class Plateau(Plain):
    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), 0.1)
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": schedule, "monitor": "val_loss"}


class Frequent(Plain):
    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), 0.1)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "frequency": 3}}


class Short(Plain):
    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), 0.1)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=3)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class NoOptimizer(Plain):
    def configure_optimizers(self):
        return None


class NoLoss(Plain):
    def training_step(self, batch, batch_idx):
        return None


class Rows(Plain):
    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1], reduction="none")


class Detached(Plain):
    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1]).detach()


class Summed(Plain):
    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1], reduction="sum")


class OwnData(Plain):
    def train_dataloader(self):
        return []


class EpochEnd(Plain):
    def on_validation_epoch_end(self): ...


class Remembers(Plain):
    def __init__(self, outputs: int) -> None:
        super().__init__(outputs)
        self.seen = 0

    def training_step(self, batch, batch_idx):
        self.seen += len(batch[1])
        return super().training_step(batch, batch_idx)


class Logger(Plain):
    def training_step(self, batch, batch_idx):
        self.logger.experiment.add_scalar("x", 1)
        return super().training_step(batch, batch_idx)


class Raises(Plain):
    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0][:-1]), batch[1])


class Embedding(Plain):
    def forward(self, images):
        return super().forward(images)[:, :3]


class LogsRange(Plain):
    how: dict = {"reduce_fx": "max"}  # noqa: RUF012

    def validation_step(self, batch, batch_idx):
        self.log("range", batch[0].amax(), **self.how)


class LogsMaximum(LogsRange):
    how: dict = {}  # noqa: RUF012


class LogsOurName(Plain):
    def validation_step(self, batch, batch_idx):
        self.log("loss", F.cross_entropy(self(batch[0]), batch[1]))


class NoForward(lightning.LightningModule):
    def training_step(self, batch, batch_idx):
        return 0


def made(width: int = 8):
    return Classifier(width=width)
