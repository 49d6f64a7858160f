"""What a command refuses it refuses with an exit code other than 0, and nothing that is typed is ignored."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lehr.cli import main

TRAIN = "kind: train\ndata: {limit: 40}\nmodel: {width: 8}\ntrain: {epochs: 1}\n"
SEARCH = "kind: search\nbase: train.yaml\nspace: {optimizer.lr: [0.1]}\n"

REFUSED = [
    ("run nothing.yaml", 2, "no such file"),
    ("run train.yaml train.epoch=1", 2, "unknown field"),
    ("run train.yaml optimizer.decay_norms=true", 2, "has no effect without optimizer.weight_decay"),
    ("run train.yaml train.gradient_accumulation=999", 2, "type: train.gradient_accumulation=128"),
    ("search train.yaml", 2, "allowed: kind: search"),
    ("search search.yaml --preview --fresh", 2, "--fresh: has no effect beside --preview"),
    ("search search.yaml --preview --debug", 2, "--debug: has no effect beside --preview"),
    ("search search.yaml stopping.least=3", 2, "stopping.least: has no effect"),
    ("resume nothing", 1, 'no run "nothing"'),
    ("resume nothing --here --follow", 2, "--follow: has no effect beside --here"),
    ("resume nothing --here --cluster http://127.0.0.1:1", 2, "--cluster: has no effect beside --here"),
    ("resume nothing --cluster http://127.0.0.1:1", 1, "127.0.0.1:1"),
    ("submit train.yaml --cluster http://127.0.0.1:1", 1, "127.0.0.1:1"),
    ("submit train.yaml --kubernetes p.yaml --cluster http://127.0.0.1:1", 2, "--cluster: has no effect beside"),
    ("submit train.yaml --kubernetes p.yaml --no-check", 2, "--no-check: is not for Kubernetes"),
    ("submit train.yaml --dry-run --follow", 2, "--follow: has no effect beside --dry-run"),
    ("jobs --cluster http://127.0.0.1:1 --kubernetes p.yaml", 2, "--cluster: has no effect beside --kubernetes"),
    ("show nothing", 1, "nothing"),
    ("rm nothing", 1, "nothing"),
    ("report nothing", 1, "nothing"),
    ("predict nothing digits out", 1, "nothing"),
    ("new nothing", 1, "is not a template"),
    ("nothing", 2, "No such command"),
]


@pytest.mark.parametrize(("typed", "code", "sentence"), REFUSED, ids=[typed for typed, _, _ in REFUSED])
def test_a_refusal_has_its_exit_code(
    typed: str, code: int, sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("train.yaml").write_text(TRAIN)
    Path("search.yaml").write_text(SEARCH)
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    monkeypatch.setattr(sys, "argv", ["lehr", *typed.split()])
    with pytest.raises(SystemExit) as ended:
        main.run_command()
    assert sentence in capsys.readouterr().err
    assert ended.value.code == code
