"""JSON Schema of job files, for editors."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from lehr.durations import Duration
from lehr.job.kinds import KINDS


class _Generator(GenerateJsonSchema):
    def encode_default(self, dft: Any) -> Any:
        return str(dft) if isinstance(dft, Duration) else super().encode_default(dft)

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a job of any kind, with descriptions, units and defaults."""
    references, schema = models_json_schema(
        [(job, "validation") for job in KINDS.values()], schema_generator=_Generator, title="lehr job"
    )
    for (job, _), reference in references.items():
        definition = schema["$defs"][reference["$ref"].rpartition("/")[2]]
        definition["properties"]["extends"] = {"type": "string", "description": "A job file this one builds on."}
        definition["required"] = ["kind"] if job is not KINDS["train"] else []
        if job is KINDS["folds"]:  # as a file says it: a train job with this field
            definition["properties"]["kind"] = {**definition["properties"]["kind"], "enum": ["train", "folds"]}
            del definition["properties"]["kind"]["const"]
            definition["required"] = ["folds"]
    return {"$schema": GenerateJsonSchema.schema_dialect, **schema, "oneOf": list(references.values())}
