"""Repairs what a killed broker leaves incomplete in its topic files.

To append a batch, Tansu first moves the partition's end offset (`watermark.json`) and then writes the batch. If it is killed
in between, the end offset is beyond the last record, and a consumer that reads up to it waits for ever. These records were
never acknowledged, so the end offset is set back to the end of the last batch.
"""

from __future__ import annotations

import json
import struct
from typing import Final

from deploy.local.topic_files.objects import Objects

_LAST_OFFSET_DELTA: Final = struct.Struct(">i")
_LAST_OFFSET_DELTA_AT: Final = 23
"""Position of lastOffsetDelta in a record batch, in bytes: https://kafka.apache.org/documentation/#recordbatch"""

_WATERMARK: Final = "/watermark.json"


def mend(objects: Objects) -> list[str]:
    """Set back end offsets that are beyond the last record; return a line for each. No broker may run."""
    partitions = [key.removesuffix(_WATERMARK) for key in objects.keys("clusters/") if key.endswith(_WATERMARK)]
    return [f"{partition}: {lost} records" for partition in partitions if (lost := _mend(objects, partition)) > 0]


def _mend(objects: Objects, partition: str) -> int:
    """Set back one partition's end offset; return by how many records."""
    marks = json.loads(objects.get(partition + _WATERMARK) or b"{}")
    batches = objects.keys(f"{partition}/records/")
    end = _end_of(objects, batches[-1]) if batches else int(marks.get("low") or 0)
    lost = int(marks.get("high") or 0) - end
    if lost > 0:
        objects.put(partition + _WATERMARK, json.dumps({**marks, "high": end}).encode())
    return lost


def _end_of(objects: Objects, batch: str) -> int:
    """Return the offset after a batch's last record."""
    (delta,) = _LAST_OFFSET_DELTA.unpack_from(objects.get(batch) or b"", _LAST_OFFSET_DELTA_AT)
    first = batch.rpartition("/")[2].removesuffix(".batch")
    return int(first) + int(delta) + 1
