"""Checks manifests against the schemas of Kubernetes and KubeRay. Unknown fields and kinds are errors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

CRDS = "LEHR_KUBERAY_CRDS"
"""Environment variable: a folder of custom resource definitions as published, such as `ray.io_rayjobs.yaml`."""


def check_core(thing: dict[str, Any]) -> None:
    """Raises for what Kubernetes itself would refuse, including unknown kinds and fields."""
    kubernetes_validate.validate(thing, kubernetes_validate.latest_version(), strict=True)


def check_ray(thing: dict[str, Any]) -> None:
    """Raises for what KubeRay's definitions refuse. Skips the test where they are not available."""
    if not check_custom(thing):
        pytest.skip(f"KubeRay's definitions are not available; set {CRDS} to their folder")


def check_custom(thing: dict[str, Any]) -> bool:
    """Raises for what the definition of a custom kind refuses. False where it is not available."""
    schema = _schema(thing["apiVersion"], thing["kind"])
    if schema is None:
        return False
    jsonschema.Draft202012Validator(schema).validate(thing)
    return True


def pod_templates(thing: Any) -> Iterator[dict[str, Any]]:
    """Every pod template in a manifest, at any depth."""
    if isinstance(thing, dict):
        if isinstance(thing.get("spec"), dict) and "containers" in thing["spec"]:
            yield thing
        for item in thing.values():
            yield from pod_templates(item)
    elif isinstance(thing, list):
        for item in thing:
            yield from pod_templates(item)


def check_pods(thing: dict[str, Any]) -> None:
    """Checks each pod template as a pod: that part of Ray's kinds is Kubernetes' own."""
    for template in pod_templates(thing):
        meta = {"name": "pod", **template.get("metadata", {})}
        check_core({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template["spec"]})


@cache
def _schema(api: str, kind: str) -> dict[str, Any] | None:
    group, _, version = api.partition("/")
    plural = f"{kind.lower()}es" if kind.endswith("s") else f"{kind.lower()}s"
    file = Path(os.environ.get(CRDS) or "nowhere") / f"{group}_{plural}.yaml"
    if not file.exists():
        return None
    definition = yaml.load(file.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    schema = next(each for each in definition["spec"]["versions"] if each["name"] == version)["schema"][
        "openAPIV3Schema"
    ]
    schema["properties"]["metadata"] = {"type": "object", "required": ["name"]}
    return _strict(schema)


def _strict(schema: Any) -> Any:
    """An OpenAPI schema as a JSON Schema that refuses unknown fields."""
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    out = {
        key: _strict(value) for key, value in schema.items() if not key.startswith("x-kubernetes") and key != "nullable"
    }
    if isinstance(schema.get("properties"), dict):
        out["properties"] = {key: _strict(value) for key, value in schema["properties"].items()}
    if schema.get("x-kubernetes-int-or-string"):
        out.pop("type", None)
        out["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    elif schema.get("nullable") and isinstance(schema.get("type"), str):
        out["type"] = [schema["type"], "null"]
    if (
        schema.get("type") == "object"
        and "properties" in out
        and not schema.get("x-kubernetes-preserve-unknown-fields")
    ):
        out.setdefault("additionalProperties", False)
    return out
