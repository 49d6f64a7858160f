"""`lehr schema`: JSON Schema of job files, for editors."""

from __future__ import annotations

import json


def schema() -> None:
    """Print the JSON Schema of job files, for completion and validation in an editor.

    Example: lehr schema > job.schema.json
    """
    from lehr.job import json_schema

    print(json.dumps(json_schema(), indent=2))
