"""What probes said of a run is kept, and not asked again."""

from __future__ import annotations

from pathlib import Path

import pytest

from lehr.curves.diagnosis import diagnose
from lehr.curves.findings import with_measured
from lehr.curves.measured import FILE, Measured
from lehr.runs import Folder

from .curves import made

SAID = Measured(99, "schedule", {"schedule": "cosine"}, ("rate_too_low", "frozen"))


def test_what_probes_said_is_read_back_as_it_was_for_the_same_steps_only(tmp_path: Path) -> None:
    folder = Folder.at(tmp_path)
    assert Measured.read(folder, 99) is None
    SAID.write(folder)
    assert Measured.read(folder, 99) == SAID
    assert Measured.read(folder, 120) is None, "the run went on since"


@pytest.mark.parametrize(
    "content",
    ["[]", "{", "null", '{"step": 99}', '{"step": 99, "cause": null, "overrides": [], "ruled_out": []}'],
)
def test_a_damaged_file_is_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)
    assert Measured.read(Folder.at(tmp_path), 99) is None


def test_causes_of_a_newer_version_are_left_out(tmp_path: Path) -> None:
    Folder.at(tmp_path).write_json(FILE, SAID.to_json() | {"cause": "gremlins", "ruled_out": ["gremlins", "frozen"]})
    assert Measured.read(Folder.at(tmp_path), 99) == Measured(99, None, {"schedule": "cosine"}, ("frozen",))


def test_a_finding_whose_cause_probes_ruled_out_says_so_and_is_not_sure() -> None:
    slow = diagnose(made(lambda p: 2.4 - 0.4 * p, update=1e-4, train=0.4, validation=lambda p: 0.1 + 0.3 * p))
    assert (slow.first.name, slow.first.confidence) == ("rate_too_low", "high")
    told = with_measured(slow, SAID)
    findings = {each.name: each for each in told.findings}
    assert findings["rate_too_low"].confidence == "low"
    assert findings["rate_too_low"].evidence.endswith("; a probe ruled out this cause")
    assert told.findings[-1].name == "rate_too_low"
    named = [each["cause"] for finding in told.to_json()["findings"] for each in finding["alternatives"]]
    assert not {"rate_too_low", "frozen"} & set(named)
    assert told.to_json()["measured"]["cause"] == "schedule"
