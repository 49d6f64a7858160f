"""Reading JSON as a dataclass, tolerantly: what is damaged, or another version of lehr wrote, reads as if missing."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
_MISFIT: Any = object()
Fit = Callable[[Any], Any]


def tolerant(kind: type[T], value: object) -> T:
    """A dataclass of the values that fit its fields; a field without one that fits has its default.

    Fields may be text, numbers, booleans, literals and dataclasses; tuples, sequences and mappings of these; unions.
    """
    found = {}
    if isinstance(value, Mapping):
        for name, fit in _fits(kind).items():  # type: ignore[arg-type]  # a class is hashable
            if name in value and (fitting := fit(value[name])) is not _MISFIT:
                found[name] = fitting
    return kind(**found)


@cache
def _fits(kind: Any) -> dict[str, Fit]:
    hints = get_type_hints(kind)
    return {each.name: _fit(hints[each.name]) for each in fields(kind)}


@cache
def _fit(hint: Any) -> Fit:
    """From a value to what the type hint has it as, or to `_MISFIT`. Looked up once for each hint."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return lambda value: value
    if isinstance(hint, type) and is_dataclass(hint):
        return lambda value: tolerant(hint, value) if isinstance(value, dict) else _MISFIT
    if origin in (Union, types.UnionType):
        fits, allowed = [_fit(each) for each in inner if each is not type(None)], type(None) in inner

        def one_of(value: Any) -> Any:
            if value is None:
                return None if allowed else _MISFIT
            found = (fit(value) for fit in fits)
            return next((each for each in found if each is not _MISFIT), _MISFIT)

        return one_of
    if origin is Literal:
        return lambda value: value if value in inner else _MISFIT
    if origin in (tuple, Sequence):
        return _all_of(_fit(inner[0]), list if origin is Sequence else tuple)
    if origin is not None:  # Mapping[str, …]
        return _mapping_of(_fit(inner[1]))
    if hint is float:
        return _float
    if hint is int:
        return _int
    return lambda value: value if isinstance(value, hint) else _MISFIT


def _float(value: Any) -> Any:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return _MISFIT
    try:
        return float(value)
    except OverflowError:  # a whole number of hundreds of digits
        return _MISFIT


def _int(value: Any) -> Any:
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63 else _MISFIT


def _mapping_of(fit: Fit) -> Fit:
    def mapping(value: Any) -> Any:
        if not isinstance(value, dict):
            return _MISFIT
        pairs = {str(name): fit(each) for name, each in value.items()}
        return {name: each for name, each in pairs.items() if each is not _MISFIT}

    return mapping


def _all_of(fit: Fit, kind: type) -> Fit:
    """To a list or tuple of what fits, or to `_MISFIT` if any does not."""

    def every(value: Any) -> Any:
        found = [fit(each) for each in value] if isinstance(value, list | tuple) else [_MISFIT]
        return _MISFIT if any(each is _MISFIT for each in found) else kind(found)

    return every
