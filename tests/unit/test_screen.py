"""What the screen says of an epoch is of that epoch."""

from __future__ import annotations

import io
from dataclasses import replace

from lehr.runs import Progress, TrainingProgress
from lehr.screen import PlainScreen, console, facts_of


def test_the_loss_in_the_line_of_an_epoch_is_that_of_the_epoch() -> None:
    file = io.StringIO()
    training = TrainingProgress(epoch=2.3, epochs=5, epochs_done=2, loss=0.9)  # the newest steps are of the next epoch
    now = Progress(metrics={"train_loss": 0.4}, training=training)
    PlainScreen(console(file)).progress(now)
    assert file.getvalue().startswith("epoch 2/5  training loss 0.4000")
    assert facts_of(now)[0] == ("loss of the last steps", "0.9000")
    assert facts_of(replace(now, training=replace(training, epoch=2.0)))[0] == ("training loss", "0.4000")
