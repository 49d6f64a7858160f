"""Predictions as COCO's tools read them: a JSON list with image_id, category_id, bbox and score of each box, or with
image_id and caption of each image."""

from __future__ import annotations

import json

from lehr.data.sources import Source
from lehr.predict.part_files import BESIDE, read_parts
from lehr.runs import Folder
from lehr.runs.tables import from_parquet

NAME = BESIDE


def write_coco_results(out: Folder, source: Source) -> bool:
    """Writes the boxes, or captions, of all files of a prediction, with the ids of the COCO JSON of its rows.

    Returns whether it did: rows of other forms have no such ids.
    """
    if not source.image_ids:
        return False
    found = []
    for name in sorted(read_parts(out)):
        with out.open_input_file(name) as file:
            table = from_parquet(file.read())
        for row in table.to_pylist():
            if row.get("caption") is not None:
                found.append({"image_id": source.image_ids[row["id"]], "caption": row["caption"]})
            if row.get("boxes") is None:
                continue
            for label, score, (x0, y0, x1, y1) in zip(row["classes"], row["scores"], row["boxes"], strict=True):
                about = {"image_id": source.image_ids[row["id"]], "category_id": source.category_ids.get(label)}
                if about["category_id"] is not None:  # a class of the run that the data set does not have
                    found.append({**about, "bbox": [x0, y0, x1 - x0, y1 - y0], "score": score})
    out.write(NAME, json.dumps(found).encode())
    return True
