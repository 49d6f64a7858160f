"""`lehr schedule`: plots of learning-rate schedules."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lehr.cli.options import Force
from lehr.errors import JobError, LehrError


def schedule(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME [OPTION=VALUE]…]…",
            help="Schedules, each followed by its options, as in: step every=5ep cosine end_factor=0.1; also your own, "
            "as my_package.module:name. Default: all.",
            show_default=False,
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Length of the run.")] = 20,
    steps_per_epoch: Annotated[int, typer.Option(min=1, help="Optimizer steps in an epoch.")] = 100,
    warmup: Annotated[
        str | None, typer.Option(help="Warmup of each schedule, such as 1ep.", show_default=False)
    ] = None,
    cooldown: Annotated[
        str | None, typer.Option(help="Cooldown of each schedule, such as 10%.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Also write the plots to this file: .png, .svg or .html.", show_default=False)
    ] = None,
    force: Force = False,
) -> None:
    """Plot learning-rate schedules side by side.

    Example: lehr schedule
    Example: lehr schedule my_schedules:triangle peak=0.3
    Example: lehr schedule cosine step every=5ep --warmup 1ep --out schedules.png
    """
    import shutil

    from lehr.curves.schedule_plots import ScheduleCurve, chart, plot, side_by_side, write
    from lehr.durations import RunLength
    from lehr.job import TrainJob, from_dict, to_dict
    from lehr.output import refuse_existing, whole
    from lehr.own_modules import look_in
    from lehr.schedules import SCHEDULES, Own
    from lehr.trust import give

    if out and out.suffix not in (".png", ".svg", ".html"):
        raise LehrError(f"--out: {out} is not a picture file; allowed: a name that ends in .png, .svg or .html")
    if out:
        refuse_existing(out, force=force)
    shared = {"warmup": warmup, "cooldown": cooldown}
    length = RunLength(steps_per_epoch, steps_per_epoch * epochs)
    curves, notes = [], []
    look_in(Path.cwd())  # where the user's own schedules are
    for section in parse(words or list(SCHEDULES)):
        job = from_dict({"schedule": {key: value for key, value in shared.items() if value} | section})
        assert isinstance(job, TrainJob)
        give(to_dict(job))
        try:
            if isinstance(job.schedule, Own):
                from lehr.training.setup import check_schedule  # takes seconds, since it imports torch

                check_schedule(job)
            curves.append(ScheduleCurve.of(job.schedule, length))
        except ValueError as error:
            raise JobError(str(error), field=f"schedule {section['name']}") from None
        notes += [f"{section['name']}: {note}" for note in job.schedule.notes(length)]
    plots = [plot(curve) for curve in curves]
    widest = max(len(line) for lines in plots for line in lines)
    print(side_by_side(plots, max(1, (shutil.get_terminal_size().columns + 3) // (widest + 3))))
    print("".join(f"\n{note}" for note in notes), end="\n" if notes else "")
    if out:
        with whole(out) as part:
            write(chart(curves), part)
        print(f"\nPicture: {out}")


def parse(words: list[str]) -> list[dict[str, Any]]:
    """`["step", "every=5ep", "cosine"]` as `[{"name": "step", "every": "5ep"}, {"name": "cosine"}]`.

    Raises:
        JobError: an option before the first name, or one that is not YAML.
    """
    from lehr.job import parse_overrides

    found: list[dict[str, Any]] = []
    for word in words:
        if "=" not in word:
            found.append({"name": word})
        elif found:
            found[-1] |= parse_overrides([word])
        else:
            raise JobError(f"{word} has no schedule before it; name one before its options, as in: step every=5ep")
    return found
