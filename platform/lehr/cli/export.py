"""`lehr export`: export a run to files that other programs load."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from lehr.cli.options import Force, RunName, Storage, Trust, storage_or_default

ROWS = 32  # to check the exported model on


def export(
    run: RunName,
    out: Annotated[Path, typer.Argument(help="The folder to write to.")] = Path("export"),
    form: Annotated[
        Literal["both", "torch", "onnx"], typer.Option("--format", help="both, torch (model.pt2) or onnx (model.onnx).")
    ] = "both",
    data: Annotated[
        str | None,
        typer.Option(
            help="Data to check the export on, as for lehr predict. By default the run's own.", show_default=False
        ),
    ] = None,
    storage: Storage = None,
    trust: Trust = None,
    force: Force = False,
) -> None:
    """Export a run, or all members of an ensemble as one model, to files that other programs load.

    The exported model includes the preprocessing: pixels in, probabilities out. Each file is read back and checked
    against the run on real rows.

    Example: lehr export train
    Example: lehr export train models/digits --format onnx
    Example: lehr export theirs/run --trust theirs/run
    """
    import json

    import torch

    from lehr.cli.data import job_of
    from lehr.data.decode import decode
    from lehr.data.sources import open_source
    from lehr.errors import LehrError
    from lehr.formatting import format_folder, format_path
    from lehr.job import Job, from_dict, to_dict
    from lehr.output import refuse_existing, whole, write_whole
    from lehr.own_modules import look_in
    from lehr.predict import load_predictor
    from lehr.predict.export import export_onnx, export_torch
    from lehr.result import find, trust_all
    from lehr.trust import calls_of, check

    forms = {"torch": (export_torch, out / "model.pt2"), "onnx": (export_onnx, out / "model.onnx")}
    chosen = [forms[name] for name in forms if form in ("both", name)]
    refuse_existing(out / "classes.json", *(path for _, path in chosen), force=force)
    look_in(Path.cwd())  # where the user's own modules are
    trust_all(trust or (), storage_or_default(storage))
    found = find(run, storage_or_default(storage))
    predictor = load_predictor(found.record.folder)
    job: Job
    if data:
        job = job_of(data, [])
    else:
        job = from_dict(found.training_run().job)
        rows = {key: value for key, value in (to_dict(job).get("data") or {}).items() if key != "augment"}
        check(calls_of({"data": rows}), format_folder(found.record.folder))
    try:
        source = open_source(job.data, job.error, predictor.task.labels, optional=True)  # type: ignore[attr-defined]
        part = source.parts[0]
    except LehrError as error:
        raise LehrError(f"{error}; to check the export on other data, add --data") from None
    decoded = decode(part.read(range(min(ROWS, part.rows))), predictor.wanted)
    pixels = torch.from_numpy(decoded.pixels).permute(0, 3, 1, 2).contiguous()
    height, width = predictor.size
    inputs: dict[str, object] = {
        "classes": predictor.classes,
        "height": height,
        "width": width,
        "channels": predictor.channels,
    }
    if predictor.wanted.range is not None:
        inputs["pixel_range"] = predictor.wanted.range
    if predictor.wanted.resize is not None:  # of the shorter side, before the middle is cut out
        inputs |= {"resize": predictor.wanted.resize, "interpolation": predictor.wanted.interpolation}
    if predictor.wanted.letterbox:  # resized until it fits, in the upper left corner, with grey beside
        inputs |= {"letterbox": True, "interpolation": predictor.wanted.interpolation}
    if predictor.wanted.scaled:
        inputs["decode"] = "scaled"
    write_whole(out / "classes.json", json.dumps(inputs, ensure_ascii=False) + "\n")
    for write, path in chosen:
        with whole(path) as file:
            done = write(predictor, pixels, file)
        difference = f"{done.difference:.1g} on {len(pixels)} rows"
        print(f"{format_path(path.absolute())}: probabilities differ from the run's by at most {difference}")
