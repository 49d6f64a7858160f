"""A notebook, executed by a real kernel: what its cells show."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat", reason="nbformat is part of the test extra")
nbclient = pytest.importorskip("nbclient", reason="nbclient is part of the test extra")

PACKAGE = Path(__file__).parents[3] / "platform"


def executed(tmp_path: Path, *cells: str) -> list[list[Any]]:
    """The outputs of each cell."""
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    class Here(AsyncKernelManager):
        """A kernel of this interpreter."""

        @property
        def kernel_spec(self) -> KernelSpec:
            return KernelSpec(argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"])

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    paths = os.pathsep.join([str(PACKAGE), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "IPYTHONDIR": str(tmp_path / "ipython")}
    client = nbclient.NotebookClient(notebook, timeout=180, kernel_manager_class=Here)
    client.execute(cwd=str(tmp_path), env=environment)
    return [cell.outputs for cell in notebook.cells]


JOB = '{"kind": "train", "name": "digits", "data": {"source": "digits", "limit": 330}, "train": {"epochs": 2}}'


def shown(outputs: list[Any], kind: str = "text/html") -> str:
    return "".join(each["data"].get(kind, "") for each in outputs if "data" in each)


def test_a_run_is_watched_in_a_cell_and_shown_by_another(tmp_path: Path) -> None:
    watched, run, metrics, picture = executed(
        tmp_path, f"import lehr\nrun = lehr.run({JOB}, debug=True)", "run", "run.metrics()", "run.curves()"
    )
    assert [each["output_type"] for each in watched] == ["display_data"], watched
    assert "Best validation accuracy" in shown(watched)
    assert shown(watched).count("<svg") == 2
    assert "digits: finished" in shown(run)
    assert "<td>2</td>" in shown(metrics)
    assert shown(picture, "image/png")


@pytest.mark.ray
@pytest.mark.slow
def test_nothing_of_rays_reaches_a_notebook(tmp_path: Path) -> None:
    base = '{"data": {"source": "digits", "limit": 330}, "train": {"epochs": 1}}'
    search = (
        f'{{"kind": "search", "name": "s", "base": {base}, "method": "grid", "space": {{"optimizer.lr": [0.1, 0.01]}}}}'
    )
    trained, searched = executed(tmp_path, f"import lehr\nrun = lehr.run({JOB})\n", f"found = lehr.run({search})\n")
    assert [each["output_type"] for each in trained] == ["display_data"], trained
    assert [each["output_type"] for each in searched] == ["display_data"], searched
    assert "2 of 2 trials" in shown(searched)
