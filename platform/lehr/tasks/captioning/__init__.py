"""Captioning: what is in an image, in words. An encoder of any backbone, and a decoder that says a word at a time.

`vocabulary.py` has the words, `network.py` makes the network of a backbone, `decoders.py` has the decoders, `beam.py`
makes sentences, `measures.py` compares them with true ones, and `task.py` is what a training, a prediction and a report
ask for.
"""

from lehr.tasks.captioning.task import TASK

__all__ = ["TASK"]
