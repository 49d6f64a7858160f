"""Hyperparameter search: spaces, samplers, early stopping, and the analysis of a finished search."""

from lehr.search.space import Space
from lehr.search.study import SearchStudy

__all__ = ["SearchStudy", "Space"]
