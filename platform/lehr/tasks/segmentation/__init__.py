"""Segmentation: the class of each pixel.

`network.py` makes the network of a backbone (a U-Net) or takes one of torchvision's, `losses.py` says what a pixel
costs, `measures.py` what is made of the confusion of pixels, `task.py` is what a training, a prediction and a report
ask for, `moving.py` moves masks with the pixels, and `pictures.py` shows them.
"""

from lehr.tasks.segmentation.task import TASK

__all__ = ["TASK"]
