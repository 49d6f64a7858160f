"""The page of a folder's predictions: a module of its own, since charts take as long to import as an answer takes."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from markupsafe import Markup
from PIL import Image

from lehr.data.decode import UnreadableImage, decode_image
from lehr.data.pixels import PixelFormat
from lehr.predict.answers import Answer, ImageFile, counts, least_certain
from lehr.reporting.page import Section, page, paragraph, table

MOST_SHOWN = 200  # images of a page
THUMBNAIL = 96  # pixels, the longer side


def answers_page(run: str, given: Sequence[Answer], files: Iterable[ImageFile]) -> str:
    """A page of the images with their answers, the least certain first, and those that could not be read.

    Args:
        run: the name of the run.
        given: the answers, as many as there are images.
        files: the images, to draw them.
    """
    unreadable = [each for each in given if each.problem]
    ordered = least_certain(given)
    read = dict(files)
    rows = [
        (_picture(read[each.name], each.picture), each.name, *(f"{name} {share}" for name, share in each.told(2)))
        for each in ordered[:MOST_SHOWN]
    ]
    left = len(ordered) - len(rows)
    by_class = any(each.ranked for each in ordered)
    sections = [Section("Images of each class", table(counts(given)))] if by_class else []
    if rows:
        more = (
            Markup("")
            if left <= 0
            else paragraph(f"{left:,} more images, each more certain, are not shown.", soft=True)
        )
        sections.append(Section("The least certain first" if by_class else "Predictions", table(rows) + more))
    if unreadable:
        sections.append(Section("Not readable", table([(each.name, each.problem) for each in unreadable[:MOST_SHOWN]])))
    facts = [("images", f"{len(given):,}"), ("not readable", f"{len(unreadable):,}")]
    return page(f"Predictions of {run}", "What the run says of each image, and how sure it is", sections, facts)


def _picture(read: Callable[[], bytes], drawn: bytes) -> Markup:
    """The image as a small picture, or what was drawn of it already; empty where it cannot be drawn any more."""
    if drawn:
        return Markup('<img alt="" src="data:image/png;base64,{}">').format(base64.b64encode(drawn).decode())
    with suppress(UnreadableImage, OSError):
        small = Image.fromarray(decode_image(read(), PixelFormat(channels=3)))
        small.thumbnail((THUMBNAIL, THUMBNAIL))
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=80)
        encoded = base64.b64encode(buffer.getvalue()).decode()
        return Markup('<img alt="" src="data:image/jpeg;base64,{}">').format(encoded)
    return Markup("")
