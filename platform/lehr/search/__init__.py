"""Hyperparameter search: spaces, samplers, early stopping, and what a search has found."""

from lehr.search.space import Space
from lehr.search.study import Search

__all__ = ["Search", "Space"]
