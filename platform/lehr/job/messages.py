"""One sentence for everything that pydantic can find wrong with a job.

What is allowed is read from the JSON Schema, so the sentence and an editor's hints have one origin.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from pydantic import BaseModel, ValidationError

from lehr.errors import JobError
from lehr.job.text import hint, nearest, not_a_choice, printable, show
from lehr.job.tree import FieldPath, Node, dotted

Schema = dict[str, Any]


def explain(error: ValidationError, job: type[BaseModel], tree: Node) -> JobError:
    """The first mistake in file order as one sentence, and how many more there are."""
    schema = _schema(job)
    found = []
    for mistake in error.errors(include_url=False):
        path = _field(mistake, schema, tree)
        location = tree.locate(path)
        order = (location.where != tree.location.where, location.line or 0)
        found.append((order, path, location, _sentence(mistake, schema, path)))
    found.sort(key=lambda item: item[0])
    _, path, location, what = found[0]
    if more := len(found) - 1:
        what += f" (and {more} more mistake{'s' if more > 1 else ''})"
    return JobError(what, field=dotted(path), where=str(location))


@cache
def _schema(job: type[BaseModel]) -> Schema:
    return job.model_json_schema()


def _field(mistake: Any, schema: Schema, tree: Node) -> FieldPath:
    """Where the mistake is: pydantic's location without the steps that only name a union's branch."""
    path: FieldPath = ()
    here = list(_branches(schema, schema))
    for part in mistake["loc"]:
        said = tree.find(path)
        if said is not None and not isinstance(said.value, dict | list):
            break  # the short form of a section: the mistake is in what was said, not in a key of it
        is_tag = any(_tag(branch) == part for branch in here)
        here = _step(schema, here, part)
        if not is_tag or tree.find((*path, part)):
            path = (*path, part)
    if mistake["type"].startswith("union_tag") and tree.find((*path, "name")):
        path = (*path, "name")
    return path


_KINDS = {  # pydantic's error type -> what the value is not
    "float_type": "a number",
    "int_type": "a whole number",
    "string_type": "text",
    "bool_type": "true or false",
    "list_type": "a list",
    "model_type": "a mapping",
    "finite_number": "a finite number",
}
_RANGES = {
    "greater_than": "is too small",
    "greater_than_equal": "is too small",
    "less_than": "is too large",
    "less_than_equal": "is too large",
    "string_too_short": "is empty",
}


def _sentence(mistake: Any, schema: Schema, path: FieldPath) -> str:
    kind, value, context = mistake["type"], mistake["input"], mistake.get("ctx", {})
    here = _walk(schema, mistake["loc"])
    if kind == "extra_forbidden":
        return _unknown(mistake["loc"], schema)
    if kind == "value_error" or "problem" in context:
        return printable(str(context.get("error") or context["problem"]))
    if kind == "missing":
        return f"is missing; allowed: {_allowed(here)}"
    if kind.startswith("union_tag") or kind == "model_attributes_type":
        tags = [tag for branch in here for tag in [_tag(branch)] if tag]
        return not_a_choice(value.get("name") if isinstance(value, dict) else value, str(mistake["loc"][-1]), tags)
    if kind == "literal_error":
        choices = [str(choice) for branch in here for choice in branch.get("enum", [branch.get("const")])]
        return not_a_choice(value, str(path[-1]).replace("_", " "), choices)
    if kind in _KINDS:
        wanted, allowed = _KINDS[kind], _allowed(here)
        if wanted == "text" and isinstance(value, int | float):
            return f"{show(value)} is not text; put it in quotes"
        if wanted == "a list":
            wrapped = f"; did you mean {show([value])}?" if isinstance(value, str | int | float) else ""
            return f"{show(value)} is not a list{wrapped}"
        return f"{show(value)} is not {wanted}" + (f"; allowed: {allowed}" if allowed != wanted else "")
    if kind in _RANGES:
        return f"{show(value)} {_RANGES[kind]}; allowed: {_allowed(here)}"
    return f"{show(value)} is not allowed; allowed: {_allowed(here)}"


def _unknown(location: tuple[str | int, ...], schema: Schema) -> str:
    *above, word = map(str, location)
    known = [key for parent in _walk(schema, location[:-1]) for key in parent.get("properties", {})]
    known += [] if above else ["extends"]
    if not nearest(word, known):  # perhaps it is the field of another section
        deepest_first = sorted(_fields(schema), key=lambda path: -path.count("."))
        fields = {path.rpartition(".")[2]: path for path in deepest_first}
        if near := nearest(word, fields):
            return f"unknown field; did you mean {fields[near]}? allowed: {', '.join(known)}"
    return "unknown field" + hint(word, known)


def _branches(root: Schema, schema: Schema) -> Iterator[Schema]:
    """The alternatives of a schema, references resolved and null left out."""
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    inner = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
    for branch in inner or ():
        yield from _branches(root, branch)
    if not inner and schema.get("type") != "null":
        yield schema


def _tag(branch: Schema) -> str | None:
    """What tells this branch of a union from the others: its name, or an example of the names that it takes."""
    name = branch.get("properties", {}).get("name", {})
    tag: str | None = name.get("const") or next(iter(name.get("examples", [])), None)
    return tag


def _step(root: Schema, here: list[Schema], part: str | int) -> list[Schema]:
    """The schemas one step further along pydantic's location; a step may only name a union's branch."""
    if isinstance(part, int):
        inner = [schema["items"] for schema in here if "items" in schema]
    else:
        inner = [schema["properties"][part] for schema in here if part in schema.get("properties", {})]
    if not inner:
        return [schema for schema in here if _tag(schema) == part]
    return [branch for schema in inner for branch in _branches(root, schema)]


def _walk(root: Schema, location: Iterable[str | int]) -> list[Schema]:
    here = list(_branches(root, root))
    for part in location:
        here = _step(root, here, part)
    return here


def _fields(root: Schema, schema: Schema | None = None, prefix: str = "") -> Iterator[str]:
    """Every dotted field path of a job."""
    for branch in _branches(root, schema or root):
        for key, inner in branch.get("properties", {}).items():
            yield prefix + key
            yield from _fields(root, inner, f"{prefix}{key}.")


def _allowed(branches: list[Schema]) -> str:
    """What a schema allows, in words: `a number above 0`."""
    return " or ".join(dict.fromkeys(_words(branch) for branch in branches))


def _words(schema: Schema) -> str:
    choices = schema.get("enum") or ([schema["const"]] if "const" in schema else [])
    if choices:
        return ", ".join(map(str, choices))
    kind = schema.get("type")
    if kind in ("number", "integer"):
        words = "a number" if kind == "number" else "a whole number"
        low, above = schema.get("minimum"), schema.get("exclusiveMinimum")
        high, below = schema.get("maximum"), schema.get("exclusiveMaximum")
        bounds = [f"above {above}"] if above is not None else [f"from {low}"] if low is not None else []
        bounds += [f"to {high}"] if high is not None else [f"below {below}"] if below is not None else []
        return " ".join([words, (" and " if below is not None else " ").join(bounds)]).strip()
    if kind == "array":
        return "a list"
    if kind == "object":
        keys = list(schema.get("properties", {}))
        return f"a mapping of {', '.join(keys)}" if keys else "a mapping"
    return {"string": "text", "boolean": "true or false"}.get(str(kind), "a plain value")
