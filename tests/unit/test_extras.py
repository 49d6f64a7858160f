"""What to type for an optional extra works where lehr was installed from."""

from __future__ import annotations

from pathlib import Path

import pytest

from lehr.extras import command, install


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ({}, "pip install 'lehr[serve]'"),
        ({"url": "https://example.org/lehr.whl"}, "pip install 'lehr[serve] @ https://example.org/lehr.whl'"),
        (
            {"url": "https://example.org/lehr.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            "pip install 'lehr[serve] @ git+https://example.org/lehr.git@abc'",
        ),
        ({"url": "file:///opt/my%20lehr", "dir_info": {"editable": True}}, "pip install -e '/opt/my lehr[serve]'"),
        ({"url": "file:///opt/lehr", "dir_info": {}}, "pip install '/opt/lehr[serve]'"),
    ],
)
def test_the_command_is_that_of_the_installation(origin: dict[str, object], expected: str, tmp_path: Path) -> None:
    assert command("serve", origin, tmp_path) == expected


def test_in_a_clone_it_is_what_the_readme_says(tmp_path: Path) -> None:
    origin = {"url": tmp_path.as_uri(), "dir_info": {"editable": True}}
    assert command("serve", origin, tmp_path) == "pip install -e '.[serve]'"


def test_these_tests_run_in_a_checkout_or_an_installation() -> None:
    assert install("onnx").startswith("pip install ")
    assert "[onnx]" in install("onnx")
