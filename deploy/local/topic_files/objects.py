"""Objects in a folder: one file each, replaced atomically, listed in the order of their keys."""

from __future__ import annotations

import bisect
import hashlib
import os
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

_UNFINISHED: Final = ".unfinished"
"""The folder for unfinished writes. No key begins with a dot."""


class KeyRefused(ValueError):
    """The key is not a path below the folder."""


class Outdated(Exception):
    """The object does not have the version that the writer expects."""


@dataclass(frozen=True, slots=True)
class Listed:
    """An object in a listing."""

    key: str
    size: int
    modified: datetime


class Objects:
    """The objects of one bucket.

    Writes are not synced to the disk, as in Kafka: a killed process loses nothing, a power failure may lose the last
    seconds.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._unfinished = folder / _UNFINISHED
        shutil.rmtree(self._unfinished, ignore_errors=True)  # of a write that was killed and never answered
        self._unfinished.mkdir(mode=0o700, parents=True)
        self._listed = {listed.key: listed for listed in map(self._look, _files(folder))}
        self._keys = sorted(self._listed)

    def get(self, key: str) -> bytes | None:
        """Return an object's content, or None if it does not exist.

        Raises:
            KeyRefused: see there.
        """
        try:
            return self._path(key).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def modified(self, key: str) -> datetime:
        """Return when an existing object was last written."""
        return self._listed[key].modified

    def put(self, key: str, content: bytes, *, must_be_new: bool = False, must_match: str | None = None) -> str:
        """Write an object; it is in its file when this returns. Returns its new version.

        Args:
            key: its key.
            content: its content.
            must_be_new: write it only if there is none.
            must_match: write it only if this is its version.

        Raises:
            KeyRefused: see there.
            Outdated: one of the two conditions does not hold. Nothing is changed.
        """
        path = self._path(key)
        if must_be_new and key in self._listed:
            raise Outdated
        if must_match is not None:
            current = self.get(key)
            if current is None or version_of(current) != must_match:
                raise Outdated
        fresh = self._unfinished / "object"
        fresh.write_bytes(content)
        if key not in self._listed:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            bisect.insort(self._keys, key)
        fresh.replace(path)
        self._listed[key] = self._look(path)
        return version_of(content)

    def delete(self, key: str) -> None:
        """Remove an object, if it is there."""
        self._path(key).unlink(missing_ok=True)
        if self._listed.pop(key, None) is not None:
            del self._keys[bisect.bisect_left(self._keys, key)]

    def find(self, prefix: str, *, after: str = "", at_most: int) -> tuple[list[Listed], bool]:
        """Return the objects whose keys begin with `prefix` and are greater than `after`, and whether there are more."""
        first = bisect.bisect_right(self._keys, after) if after >= prefix else bisect.bisect_left(self._keys, prefix)
        found: list[Listed] = []
        for key in self._keys[first : first + at_most + 1]:
            if not key.startswith(prefix):
                return found, False
            found.append(self._listed[key])
        return found[:at_most], len(found) > at_most

    def keys(self, prefix: str) -> list[str]:
        """Return all keys that begin with `prefix`, in order."""
        return [found.key for found in self.find(prefix, at_most=len(self._keys))[0]]

    def _path(self, key: str) -> Path:
        parts = key.split("/")
        if any(not part or part.startswith(".") or "\0" in part for part in parts):
            raise KeyRefused(f"no key of an object: {key!r}")
        return self._folder.joinpath(*parts)

    def _look(self, path: Path) -> Listed:
        status = path.stat()
        return Listed(
            key=path.relative_to(self._folder).as_posix(),
            size=status.st_size,
            modified=datetime.fromtimestamp(status.st_mtime, UTC),
        )


def version_of(content: bytes) -> str:
    """Return the version (S3's ETag, without quotes) of an object with this content."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _files(folder: Path) -> list[Path]:
    return [
        Path(place) / name
        for place, folders, names in os.walk(folder)
        for name in names
        if not place.endswith(_UNFINISHED) and not folders.count(name)
    ]
