"""Every finding has its row in the table of what else could look like it, and every cause a probe that tells it."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import get_args

import lehr.curves
from lehr.curves.alternatives import (
    ALTERNATIVES,
    CAUSES,
    CLAIMS,
    QUESTIONS,
    TELLS,
    Cause,
    ProbeName,
    alternatives_of,
    in_a_line,
    probes_for,
)
from lehr.curves.diagnosis import diagnose
from lehr.curves.findings import Finding
from lehr.probes.run import MEASURES

from .curves import made


def test_every_finding_has_a_row() -> None:
    folder = Path(lehr.curves.__file__).parent
    named = {name for file in folder.glob("*.py") for name in re.findall(r'name="(\w+)",\n +title=', file.read_text())}
    assert len(named) > 20
    assert not named - ALTERNATIVES.keys()


def test_every_cause_has_words_and_a_probe_and_every_probe_a_question() -> None:
    assert set(get_args(Cause)) == CAUSES.keys() == TELLS.keys()
    assert set(get_args(ProbeName)) == QUESTIONS.keys() == MEASURES.keys()
    assert {probe for probe, _ in TELLS.values()} == QUESTIONS.keys()
    for name, causes in ALTERNATIVES.items():
        assert not set(causes) & set(CLAIMS.get(name, ())), f"{name} is its own alternative"


def test_a_verdict_names_what_else_could_look_like_it() -> None:
    guess = math.log(10)
    found = diagnose(made(guess, validation=0.1, train=0.1, update=1e-10, validation_loss=guess)).first
    assert found.name == "not_learning"
    others = found.to_json()["alternatives"]
    assert {"cause": "labels", "what": CAUSES["labels"], "probe": "labels", "source": "[1], [4]"} in others
    assert Finding.from_json(found.to_json()) == found  # what is shown is not part of what was found
    assert in_a_line("not_learning", 1) == (
        "Could also be: the learning rate is too low (probe: rates); 5 more in the report."
    )
    assert alternatives_of("something of a newer version") == ()
    assert in_a_line("healthy") == ""


def test_the_probes_of_the_likeliest_causes_come_first() -> None:
    assert probes_for(["rate_too_low"])[0] == "rates"
    assert probes_for(["too_regularised"])[0] == "parts"
    assert probes_for(["healthy"]) == ()
