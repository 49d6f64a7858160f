"""Every hint in the source can be typed: commands, assignments and YAML in errors, advice, help, pages and docstrings.

Hints are found in the source itself, so a new one is tried without a line here. What an f-string fills in is in
`FILLED`; a placeholder that is not there fails, as does a word after `lehr` that is neither a command nor in `PROSE`.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from tests.unit.cli.test_documents import DOCUMENTS, parse
from typer._click.exceptions import UsageError

from lehr.errors import JobError
from lehr.job import KINDS, load
from lehr.job.sections import START_FROM_PRETRAINED

ROOT = Path(__file__).parents[3]
SOURCE = ROOT / "platform" / "lehr"

FILLED = {
    # names and files
    "run": "train",
    "run.name": "train",
    "run.job.get('run')": "runs/train",
    "run.name}/{chosen": "train/trials/0001",
    "found.name": "train",
    "folder.name": "train",
    "loaded.run_name": "train",
    "LITE": "efficientnet_lite0",
    "another": "train-2",
    "shown": "best.yaml",
    "where": "runs/train",
    "tracking/process.py name": "mlflow",
    "training/resume.py count": "32",
    "job.data.cache": "memory",
    "recipe.base.task.name": "regression",
    "job.task.name": "regression",
    "wanted_name": "[cat,dog]",
    "name": "train",
    "request.run": "train",
    "file": "best.yaml",
    "target": "job.yaml",
    "chosen": "trials/0001",
    "only": "photo.jpg",
    "shlex.quote(run.name)": "train",
    "shlex.quote(folder.uri)": "runs/train",
    "shlex.quote(str(file))": "best.yaml",
    "path": "photos",
    "data": "photos",
    "first": "photos",
    "above": "photos",
    # options
    "f' --storage {storage}' if storage else ''": " --storage runs",
    # values
    "3 * study.epochs": "30",
    "3 * epochs": "30",
    "3 * job.train.epochs": "30",
    "max(1, epochs // 2)": "2",
    "size": "63",
    "epochs": "5",
    "max(2, rows)": "7",
    "len(groups)": "3",
    "NO_COLUMN": "none",
    "side": "64",
    "similar": "cells",
    "parts": "2",
    "fits": "1",
    "fitting": "1",
    "total // least": "1",
    "choice": "stream",
    "unit.lower()": "cpu",
    "best": "finetune",
    "own.data.per_class": "5",
    "search.method": "tpe",
    "rule": "median",
    "stopping.name": "median",
    "given.resize": "256",
    "show(value)": "1",
    "', '.join(transfer.strategy)": "features, finetune",
    "high if high > low else low + 1": "4095",
    "low": "0",
    # the name of a field
    "job/unused.py name": "cpus",
    "schedules/base.py name": "warmup",
    "job/transfer.py key": "weights",
    "show(each).strip(chr(34))": "resnet18.pth",
    "other": "ema",
    # changes that other tests make and try: those of findings, of probes
    "self.command": "train.epochs=30",
    "changes": "train.epochs=30",
    "START_FROM_PRETRAINED": START_FROM_PRETRAINED,
}
"""By the expression in an f-string, what it may be; where it means something else in one file, with that before it."""

PROSE = (
    "and asks calls comes does expects fills had has hold if in is itself job keeps knows made makes needs on predicts "
    "reads records sets takes that there to trains will with works wrote"
)
"""Words after `lehr` in sentences that are about the program."""

END = re.compile(
    r"[`;\n\"|)]|\.(?:\s|$)|,\s|\s(?:&&|\|)\s|\s\(|\s{3,}|: |$|"
    r"\s(?:starts|makes|needs|or|before|in the|again|prints|and|then|lists)\b"
)
"""Where a command ends in a sentence."""
COMMAND = re.compile(r"(?<![\w./-])lehr ([a-z{][\w-]*)")
ASSIGNMENT = re.compile(
    r"(?<![\w.{/?&-])((?:[a-z_]+\.)*[a-z_]+(?:\.\{[^}]*\}s?)?)=(\[[^\]]*\]|(?:\{[^}]*\}|[^\s;,)`\"'|])+)"
)
FIELD = re.compile(
    r"(?:allowed with|allowed:|\btype:?|such as|did you mean|\bwrite|\bset|\btry|\bwith) "
    r"((?:[a-z_]+\.)*[a-z_]+): (\[[^\]]*\]|\{[^{}]*:[^{}]*\}|(?:\{[^}]*\}|[^\s;,.?)`\"'])+)"
)


@dataclass(frozen=True)
class Hint:
    """Something to type, and where it stands."""

    where: str
    text: str

    def filled(self) -> str:
        """The text with a value for each placeholder."""

        def value(found: re.Match[str]) -> str:
            if re.match(r"\w+: ", found[1]):
                return found[0]  # a mapping of YAML
            file = self.where.rpartition(":")[0].removeprefix("platform/lehr/")
            for key in (f"{file} {found[1]}", found[1]):
                if key in FILLED:
                    return FILLED[key]
            raise ValueError(f"no value for {{{found[1]}}}; add it to FILLED")

        text = re.sub(r"\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}", value, self.text)
        return re.sub(r"\$\w+", "1", text)  # the counter of a loop in a shell


@cache
def sentences() -> list[tuple[str, str]]:
    """(file:line, text) of every string in the source that is no docstring; what f-strings fill in stays in braces."""
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        skipped = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                skipped |= {id(each) for each in ast.walk(node)} - {id(node)}
        for node in ast.walk(tree):
            if id(node) in skipped:
                continue
            text = node.value if isinstance(node, ast.Constant) else unfilled(node)
            if isinstance(text, str):
                found.append((f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}", text))
    return found


def unfilled(node: ast.AST) -> str | None:
    """The text of an f-string, with its expressions in braces; None for anything else."""
    if not isinstance(node, ast.JoinedStr):
        return None
    return "".join(
        "{" + ast.unparse(each.value) + "}" if isinstance(each, ast.FormattedValue) else str(getattr(each, "value", ""))
        for each in node.values
    )


def commands() -> Iterator[Hint]:
    for where, text in sentences():
        for found in COMMAND.finditer(text):
            if found[1] not in PROSE.split() and not found[1].startswith("{") and text not in NO_HINTS:
                inside = text[found.start() :]
                braces = re.sub(r"\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}", lambda part: "_" * len(part[0]), inside)
                ended = END.search(braces, len("lehr "))
                yield Hint(where, inside[: ended.start() if ended else None])


def assignments() -> Iterator[Hint]:
    for where, text in sentences():
        if "</" in text or text.startswith(("(", "ray_")):  # pages, patterns, queries of Prometheus
            continue
        for found in ASSIGNMENT.finditer(text):
            if found[1].split(".")[0] in top_level() or "." in found[1]:
                yield Hint(where, found[0].rstrip(".:?"))
    for path in DOCUMENTS:
        for found in re.findall(r"`((?:[a-z_]+\.)+[a-z_]+=[^`\s…]+)`", path.read_text(encoding="utf-8")):
            yield Hint(f"{path.relative_to(ROOT)}:", found)


def fields() -> Iterator[Hint]:
    for where, text in sentences():
        for found in FIELD.finditer(text):
            if paths_of(found[1]):
                yield Hint(where, f"{found[1]}: {found[2]}")


NO_HINTS = {"lehr cluster health": "the title of a dashboard"}
NOT_OF_A_JOB = {
    "platform/lehr/kuberay/client.py": "a selector of Kubernetes",
    "platform/lehr/models/lightning.py": "arguments of self.log",
    "platform/lehr/cli/manifest.py": "a field of a profile",
    "platform/lehr/serving/app.py": "a form",
    "platform/lehr/cli/serve.py": "the token in an address",
}


@cache
def top_level() -> frozenset[str]:
    """The first words of all fields of jobs."""
    return frozenset(name for kind in KINDS.values() for name in kind.model_fields)


@cache
def all_paths() -> frozenset[str]:
    """The dotted paths of all fields of jobs."""
    from lehr.job.messages import _fields, _schema

    return frozenset(path for kind in KINDS.values() for path in _fields(_schema(kind)))


def paths_of(name: str) -> list[str]:
    """The fields that a name may mean: itself, or the last part of the path of one."""
    return sorted(path for path in all_paths() if f".{path}".endswith(f".{name}"))


JOBS = sorted((ROOT / "jobs").glob("*.yaml"))
CONTEXTS: dict[str, tuple[dict[str, Any], ...]] = {
    "data.split": ({"data.source": "table", "data.path": "table.csv"},),
    "schedule.decay": ({"schedule": "wsd"},),
    "schedule.": ({"schedule": "step"}, {"schedule": "cyclic"}, {"schedule": "snapshot"}),
    "train.averaging.": ({"train.averaging": "ema"}, {"train.averaging": "swa"}),
    "model.weights": ({"model": "resnet18", "data.image_size": 224}, {"finetune.head_first": "20%"}),
    "finetune.": ({"model.weights": "run:other"},),
    "optimizer.": ({}, {"optimizer": "adamw"}),
    "backbone.preprocessing": ({"backbone.preprocessing": {"mean": [128], "std": [64]}},),
    "method": ({"cycles": None, "members": None, "base.train.averaging": "ema"},),
}
"""By the beginning of a field, other changes of a job with which it has a meaning."""


def why_not(change: dict[str, Any] | list[str]) -> str:
    """Empty if one of the templates takes a change, alone or in one of its contexts, else the best reason why not."""
    (path,) = change if isinstance(change, dict) else [change[0].partition("=")[0]]
    contexts = [{}, *(each for start, found in CONTEXTS.items() if path.startswith(start) for each in found)]
    reasons = []
    for job in JOBS:
        for context in contexts:
            try:
                typed = change if isinstance(change, dict) else dict(item.split("=", 1) for item in change)
                load(job, [*(f"{key}={json.dumps(value)}" for key, value in context.items()), *as_typed(typed)])
                return ""
            except JobError as error:
                reasons.append(str(error))
    return min(reasons, key=lambda reason: "unknown field" in reason)


def as_typed(change: dict[str, Any]) -> list[str]:
    """Changes as they are typed on the command line."""
    return [f"{path}={value if isinstance(value, str) else json.dumps(value)}" for path, value in change.items()]


def refused(hints: Iterable[Hint], why: Callable[[Hint], str]) -> list[str]:
    """The hints for which `why` has an answer or fails, each with where it stands."""
    found = []
    for hint in hints:
        try:
            answer = why(hint)
        except (UsageError, AssertionError, ValueError) as error:
            answer = str(getattr(error, "message", error))
        found += [f"{hint.where}: {hint.text}: {answer}"] if answer else []
    return found


def test_every_command_in_the_source_can_be_typed() -> None:
    found = list(commands())
    assert len(found) > 50

    def why(hint: Hint) -> str:
        line = hint.filled().strip()
        parse(line)
        return next(filter(None, (why_not([word]) for word in shlex.split(line)[2:] if "=" in word)), "")

    assert not (wrong := refused(found, why)), "\n".join(wrong)


def test_every_assignment_in_the_source_is_taken_by_a_job() -> None:
    found = [hint for hint in assignments() if hint.where.rpartition(":")[0] not in NOT_OF_A_JOB]
    assert len(found) > 25
    assert not (wrong := refused(found, lambda hint: why_not([hint.filled()]))), "\n".join(wrong)


def test_every_field_with_a_value_in_the_source_is_taken_by_a_job() -> None:
    found = list(fields())
    assert len(found) > 10

    def why(hint: Hint) -> str:
        name, _, value = hint.filled().partition(": ")
        said = yaml.safe_load(value)
        if isinstance(said, dict) and set(said) <= {"log_uniform", "uniform", "choice"}:  # of a search
            said, name = {name: said}, "space"
        tried = [why_not({path: said}) for path in paths_of(name)]
        return tried[0] if all(tried) else ""

    assert not (wrong := refused(found, why)), "\n".join(wrong)


def test_every_extra_that_is_named_exists() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    texts = [*sentences(), *((str(path), path.read_text(encoding="utf-8")) for path in DOCUMENTS)]
    named = [(where, extra) for where, text in texts for extra in re.findall(r"(?:lehr|\.)\[([a-z0-9,]+)\]", text)]
    assert named
    for where, extra in named:
        assert set(extra.split(",")) <= set(extras), f"{where}: there is no extra {extra}"
