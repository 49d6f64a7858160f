"""Reading JSON as a dataclass, tolerantly: what is damaged, or another version of lehr wrote, reads as if missing."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
_MISFIT: Any = object()


def tolerant(kind: type[T], value: object) -> T:
    """A dataclass of the values that fit its fields; a field without one that fits has its default.

    Fields may be text, numbers, booleans, literals and dataclasses; tuples, sequences and mappings of these; unions.
    """
    found = {}
    if isinstance(value, Mapping):
        for name, hint in _hints(kind).items():  # type: ignore[arg-type]  # a class is hashable
            if name in value and (fitting := _fit(hint, value[name])) is not _MISFIT:
                found[name] = fitting
    return kind(**found)


@cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {each.name: hints[each.name] for each in fields(kind)}


def _fit(hint: Any, value: Any) -> Any:
    """The value as the type hint has it, or `_MISFIT`."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if isinstance(hint, type) and is_dataclass(hint):
        return tolerant(hint, value) if isinstance(value, dict) else _MISFIT
    if origin in (Union, types.UnionType):
        if value is None:
            return None if type(None) in inner else _MISFIT
        found = (_fit(each, value) for each in inner if each is not type(None))
        return next((each for each in found if each is not _MISFIT), _MISFIT)
    if origin is Literal:
        return value if value in inner else _MISFIT
    if origin in (tuple, Sequence):
        return _all_fit(inner[0], value, list if origin is Sequence else tuple)
    if origin is not None:  # Mapping[str, …]
        if not isinstance(value, dict):
            return _MISFIT
        pairs = {str(name): _fit(inner[1], each) for name, each in value.items()}
        return {name: each for name, each in pairs.items() if each is not _MISFIT}
    if hint is float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            return _MISFIT
        try:
            return float(value)
        except OverflowError:  # a whole number of hundreds of digits
            return _MISFIT
    if hint is int:
        return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63 else _MISFIT
    return value if isinstance(value, hint) else _MISFIT


def _all_fit(hint: Any, value: Any, kind: type) -> Any:
    """The value as a list or tuple of what the hint wants, or `_MISFIT`."""
    found = [_fit(hint, each) for each in value] if isinstance(value, list | tuple) else [_MISFIT]
    return _MISFIT if any(each is _MISFIT for each in found) else kind(found)
