"""Arguments that several commands share."""

from __future__ import annotations

import os
from typing import Annotated

import typer

Storage = Annotated[
    str | None,
    typer.Option(help="Folder or URI that holds the runs. By default LEHR_STORAGE, else ./runs.", show_default=False),
]
RunName = Annotated[str, typer.Argument(help="A run: its name, or the path or URI of its folder.", show_default=False)]


def storage_or_default(storage: str | None) -> str:
    return storage or os.environ.get("LEHR_STORAGE") or "./runs"
