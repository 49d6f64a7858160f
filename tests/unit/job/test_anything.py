"""Whatever a file or a command line contains is a job, or is refused in one sentence: there is no other exception."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lehr.errors import JobError
from lehr.job import from_dict, job_hash, load, to_dict

pytestmark = pytest.mark.filterwarnings("error")

bounded = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)

FIELDS = """
    kind name seed storage notes data model loss optimizer schedule train workers extends source path validation
    augment limit image_size cache weights label_smoothing class_weights lr weight_decay momentum warmup cooldown
    end_factor final epochs batch_size early_stopping patience averaging decay metric precision checkpoint every keep
    max_gradient_norm clip evaluated_training_rows
    clean_subset count gpus cpus retries 0 1 x
"""
WORDS = r"""
    train sgd cosine constant auto digits images shift 5ep 10% 0.2 20% 1e-4 .nan -.inf 1e999 -1 0 true no null ~ fp16
    run:x s3://b/x ~/x 99999999999999999999999 !!python/x *a &a [ ] { } : - ? | > ' " # % @ ` \
"""

fields, words = st.sampled_from(FIELDS.split()), st.sampled_from([*WORDS.split(), "\t", ""])
texts = st.text(st.characters(exclude_categories=()), max_size=8)  # lone surrogates too
scalars = words | texts | st.integers() | st.floats() | st.booleans() | st.none()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(fields, inner, max_size=4), max_leaves=12
)
mappings = st.dictionaries(fields, values, max_size=6)
token = fields | words | st.sampled_from(["\n", "\n  ", ": ", ", ", " ", "- "]) | st.text(max_size=3)
yaml_like = st.lists(token, max_size=25).map("".join)
paths = st.lists(fields | texts, max_size=4).map(".".join)
overrides = st.lists(st.builds("{}={}".format, paths, yaml_like | scalars) | texts | yaml_like, max_size=4)


def attempt(make: Any) -> None:
    """A job that loads can be named, hashed and written down; one that does not is refused on one line."""
    try:
        job = make()
    except JobError as error:
        job, refused = None, str(error)
    if job is None:
        assert refused.isprintable()
        assert len(refused) > 10
        return
    assert from_dict(to_dict(job)) == job
    assert job.run_name
    assert len(job_hash(job)) == 16


@bounded
@given(text=yaml_like | st.text(max_size=60), said=st.just([]) | overrides)
def test_any_text_loads_or_is_refused(tmp_path: Path, text: str, said: list[str]) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    attempt(lambda: load(path, said))


@bounded
@given(mapping=mappings, said=st.dictionaries(paths, values, max_size=3))
def test_any_mapping_loads_or_is_refused(mapping: dict[str, Any], said: dict[str, Any]) -> None:
    attempt(lambda: from_dict(mapping, said))


@bounded
@given(said=overrides)
def test_any_override_loads_or_is_refused(tmp_path: Path, said: list[str]) -> None:
    (tmp_path / "job.yaml").write_text(
        "optimizer: {lr: 0.3, momentum: 0.9}\ndata: {augment: [shift]}\nschedule: cosine"
    )
    attempt(lambda: load(tmp_path / "job.yaml", said))


@bounded
@given(raw=st.binary(max_size=80))
def test_any_bytes_load_or_are_refused(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "job.yaml").write_bytes(raw)
    attempt(lambda: load(tmp_path / "job.yaml"))
