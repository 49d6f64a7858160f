"""Prediction with a trained run or ensemble: one function from images to class probabilities.

`load_predictor` reads it. The other modules map it over the rows of a source, in this process or on Ray, in a single
pass over the input for any number of members.
"""

from lehr.predict.ensemble_description import EnsembleDescription, EnsembleMember
from lehr.predict.predictor import Network, Predictor, load_network, load_predictor

__all__ = ["EnsembleDescription", "EnsembleMember", "Network", "Predictor", "load_network", "load_predictor"]
