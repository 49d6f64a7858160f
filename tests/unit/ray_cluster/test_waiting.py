"""What a job says while it waits for resources."""

from __future__ import annotations

import pytest

pytest.importorskip("ray")

from lehr.ray_cluster.waiting import Actor, Bundle, Held, PlacementGroup, holders_of, waiting

X, Y = ("run X", {"GPU": 2.0, "CPU": 4.0}), ("run Y", {"CPU": 3.0})


@pytest.mark.parametrize(
    ("needs", "free", "held", "sentence"),
    [
        ({"CPU": 4, "GPU": 4}, {"CPU": 8, "GPU": 2}, [X], "waiting for 4 GPUs: 2 free, 2 held by run X"),
        ({"CPU": 4}, {"CPU": 1}, [X, Y], "waiting for 4 CPUs: 1 free, 4 held by run X, 3 held by run Y"),
        ({"CPU": 1}, {}, [Y], "waiting for 1 CPU: 0 free, 3 held by run Y"),
        ({"CPU": 4, "GPU": 1}, {"CPU": 1, "GPU": 0}, [], "waiting for 1 GPU: 0 free"),
        ({"CPU": 4}, {"CPU": 5}, [], "waiting for 4 CPUs: as many are free, but not where workers fit"),
    ],
)
def test_the_sentence_names_what_is_missing_and_who_holds_it(
    needs: dict[str, float], free: dict[str, float], held: Held, sentence: str
) -> None:
    assert waiting(needs, free, held) == sentence


def test_each_resource_is_counted_once() -> None:
    bundle: Bundle = {"unit_resources": {"CPU": 1.0, "GPU": 1.0}}
    groups: list[PlacementGroup] = [{"creator_job_id": "02", "bundles": [bundle, bundle]}]
    actors: list[Actor] = [
        {"job_id": "02", "ray_namespace": "lehr:X", "placement_group_id": None, "required_resources": {}},
        {"job_id": "02", "ray_namespace": "lehr:X", "placement_group_id": "aa", "required_resources": {"CPU": 1.0}},
        {"job_id": "03", "ray_namespace": "abc", "placement_group_id": None, "required_resources": {"CPU": 3.0}},
    ]
    assert holders_of(groups, actors) == [
        ("another job", {"CPU": 3.0, "GPU": 0.0}),
        ("run X", {"CPU": 2.0, "GPU": 2.0}),
    ]
