"""From the name of a task to its class, and from what a model file keeps of one to the task."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from lehr.own_code import calling
from lehr.tasks.base import Task
from lehr.tasks.forms import LABEL_KINDS, TASKS
from lehr.tasks.losses import Activation
from lehr.trust import Call, load, named


def find_task(name: str, options: Mapping[str, Any]) -> type[Task[Any]]:
    """The class of a task: one of lehr's by name, or a user's own as `my_package.tasks:Task`.

    Raises:
        ValueError: there is none, or it is no task; says what it must have.
        Untrusted: it is code that nobody allowed.
    """
    if name in TASKS:
        registered: type[Task[Any]] = import_module(f"lehr.tasks.{TASKS[name].module}").TASK
        return registered
    found = load(Call("task", name, options))
    if not inspect.isclass(found) or not issubclass(found, Task):
        raise ValueError(f"{name} is no task; allowed: a subclass of lehr.tasks.base.Task")
    if missing := sorted(found.__abstractmethods__):
        raise ValueError(f"{name} has no {', '.join(missing)}; lehr.tasks.base.Task says what each of them does")
    if found.labels not in LABEL_KINDS:
        raise ValueError(f'{name}.labels is "{found.labels}"; allowed: {", ".join(LABEL_KINDS)}')
    return found


def is_own(name: str) -> bool:
    """Whether a task is a user's own code."""
    return name not in TASKS


def restore(
    name: str, options: Mapping[str, Any], names: Sequence[str], state: Mapping[str, Any], activation: Activation
) -> Task[Any]:
    """The task of a finished model. Raises as `find_task`, and OwnCodeError where a user's own cannot be restored."""
    found = find_task(name, options)
    if not is_own(name):
        return found.restore(names, state, activation)
    with calling(name, names=list(names), **options):
        return found.restore(names, state, activation)


def calls(name: str, options: Mapping[str, Any]) -> list[Call]:
    """The code that a task is, if it is not one of lehr's."""
    return named("task", name, options)
