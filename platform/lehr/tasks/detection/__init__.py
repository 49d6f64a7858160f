"""Detection: what is in an image, and where. One-stage and anchor-free, on any convolutional network.

`network.py` makes the network of a backbone, `targets.py` says what each location learns and what that costs,
`decoding.py` makes boxes of the outputs, `task.py` is what a training, a prediction and a report ask for, and
`moving.py` moves boxes with the pixels.
"""

from lehr.tasks.detection.task import TASK

__all__ = ["TASK"]
