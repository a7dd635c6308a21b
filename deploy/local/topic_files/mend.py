"""What a killed broker leaves half done in its topic files.

To append a batch, Tansu first moves the partition's end (`watermark.json`) and then writes the batch. Killed between
the two, it leaves an end behind which there is nothing: a consumer that reads up to the end would wait for
ever. No producer got an answer for those records, so the end goes back to where the last batch ends.
"""

from __future__ import annotations

import json
import struct
from typing import Final

from deploy.local.topic_files.objects import Objects

_LAST_OFFSET_DELTA: Final = struct.Struct(">i")
_LAST_OFFSET_DELTA_AT: Final = 23
"""Where a record batch has the distance from its first to its last offset, in bytes:
https://kafka.apache.org/documentation/#recordbatch"""

_WATERMARK: Final = "/watermark.json"


def mend(objects: Objects) -> list[str]:
    """Put back the ends of partitions behind which there is nothing; return a line for each. No broker may run."""
    partitions = [key.removesuffix(_WATERMARK) for key in objects.keys("clusters/") if key.endswith(_WATERMARK)]
    return [f"{partition}: {lost} records" for partition in partitions if (lost := _mend(objects, partition)) > 0]


def _mend(objects: Objects, partition: str) -> int:
    """Put one partition's end back; return by how many records."""
    marks = json.loads(objects.get(partition + _WATERMARK) or b"{}")
    batches = objects.keys(f"{partition}/records/")
    end = _end_of(objects, batches[-1]) if batches else int(marks.get("low") or 0)
    lost = int(marks.get("high") or 0) - end
    if lost > 0:
        objects.put(partition + _WATERMARK, json.dumps({**marks, "high": end}).encode())
    return lost


def _end_of(objects: Objects, batch: str) -> int:
    """The offset that follows a batch's last record."""
    (delta,) = _LAST_OFFSET_DELTA.unpack_from(objects.get(batch) or b"", _LAST_OFFSET_DELTA_AT)
    first = batch.rpartition("/")[2].removesuffix(".batch")
    return int(first) + int(delta) + 1
