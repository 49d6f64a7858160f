"""The examples in the guides to optimizers, schedules and augmentations run as they stand there."""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.training.conftest import losses

LEHR = Path(__file__).parents[3] / "platform/lehr"
GUIDES = [LEHR / "SCHEDULES.md", LEHR / "training/optimizers/README.md", LEHR / "data/augment/README.md"]


def examples() -> str:
    """All indented Python of the guides."""
    blocks = [re.findall(r"(?m)(?:^    .*\n|^\n(?=    ))+", guide.read_text()) for guide in GUIDES]
    code = [textwrap.dedent(block) for blocks_of in blocks for block in blocks_of]
    return "import torch\n" + "\n".join(block for block in code if re.search(r"(?m)^(class|def) ", block))


@pytest.mark.parametrize(
    ("sections", "name"),
    [
        ({"optimizer": {"name": "guides:Sign", "lr": 0.003, "weight_decay": 0.01}}, "Sign"),
        ({"schedule": {"name": "guides:triangle", "peak": 0.3}}, "triangle"),
        ({"data__augment": [{"name": "guides:brighter", "by": 30.0}]}, "brighter"),
        ({"data__augment": [{"name": "guides:Grain", "strength": 4.0}]}, "Grain"),
    ],
)
def test_the_examples_of_the_guides_train(
    sections: dict[str, Any], name: str, train_tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code/guides.py").write_text(examples())
    monkeypatch.syspath_prepend(tmp_path / "code")
    sys.modules.pop("guides", None)
    run = train_tiny(**sections, train__epochs=4)
    assert sum(losses(run)[-4:]) < 0.9 * sum(losses(run)[:4])
    assert hasattr(sys.modules["guides"], name)


def test_the_guide_s_optimizer_spares_norms_and_follows_the_rate(tmp_path: Path) -> None:
    namespace: dict[str, Any] = {}
    exec(examples(), namespace)
    weight = torch.nn.Parameter(torch.ones(2, 2))
    sign = namespace["Sign"]([{"params": [weight], "weight_decay": 0.0}], lr=0.5, weight_decay=0.1)
    weight.grad = torch.ones(2, 2)
    sign.step()
    assert weight.tolist() == [[0.5, 0.5]] * 2
