"""Free options of a section, checked against the signature of what they are for."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any

from lehr.errors import JobError
from lehr.job.text import hint, not_a_choice, show

_NULL = type(None)
_TYPES: dict[Any, Any] = {int: int, float: int | float, str: str, bool: bool, _NULL: _NULL}
_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def check_call(
    function: Callable[..., Any],
    options: Mapping[str, Any],
    *,
    skip: Collection[str] = (),
    fields: Collection[str] = (),
    field: str,
    error: Callable[[str, str], JobError],
) -> None:
    """Checks that `function(..., **options)` can be called: known options, none missing, simple types right.

    Args:
        function: a function or class. One with `**kwargs` takes any option; one without a signature is not checked.
        options: the free options of a `NamedSection`.
        skip: parameters that the caller fills in itself.
        fields: what else the section holds, which a misspelt option may mean.
        field: the section's dotted path, such as `model`.
        error: makes the error for a field and a sentence; `job.error`.

    Raises:
        JobError: whatever `error` returns, for the first mistake.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return
    by_name = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    named = {p.name: p for p in by_name if p.name not in skip}
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters)
    hints = _hints(function)
    for name, value in options.items():
        if name in named:
            if problem := _mismatch(value, hints.get(name, Any), name):
                raise error(f"{field}.{name}", problem)
        elif not open_ended or name in skip:
            known = [*named, *fields]
            raise error(f"{field}.{name}", "unknown option" + (hint(name, known) if known else "; it has no options"))
    missing = [name for name, p in named.items() if p.default is p.empty and name not in options]
    if missing:
        raise error(field, f"needs {' and '.join(missing)}")


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    target = function.__init__ if inspect.isclass(function) else function
    try:
        return typing.get_type_hints(target)
    except Exception:  # someone's annotations need not resolve; then types are theirs to check
        return {}


def _mismatch(value: Any, wanted: Any, name: str) -> str:
    """What is wrong with a value for an annotation; empty when it fits or when the annotation is not a simple one."""
    origin = typing.get_origin(wanted)
    if origin is typing.Literal:
        choices = typing.get_args(wanted)
        return "" if value in choices else not_a_choice(value, name.replace("_", " "), map(str, choices))
    members = typing.get_args(wanted) if origin in (typing.Union, types.UnionType) else (wanted,)
    if not all(member in _TYPES for member in members):
        return ""
    if any(isinstance(value, _TYPES[m]) and (m is bool or not isinstance(value, bool)) for m in members):
        return ""
    words = " or ".join(_WORDS[member] for member in members if member is not _NULL)
    return f"{show(value)} is not {words}"
