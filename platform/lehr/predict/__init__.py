"""Using what was trained: a run or an ensemble of runs as one function from images to class probabilities.

`load_predictor` reads it; everything else maps it over the rows of a source, in this process or on Ray, in one pass
over the input however many members there are.
"""

from lehr.predict.predictor import Network, Predictor, load_network, load_predictor, write_ensemble

__all__ = ["Network", "Predictor", "load_network", "load_predictor", "write_ensemble"]
