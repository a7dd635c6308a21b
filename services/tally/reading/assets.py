"""The pages' style sheet, script and icon, at addresses that change with their content."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs

from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

_DIRECTORY: Final = Path(__file__).parent / "static"


def _version(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=6).hexdigest()


_VERSIONS: Final = {path.name: _version(path) for path in _DIRECTORY.iterdir() if path.is_file()}


def asset_url(name: str) -> str:
    """The address of a file: ``/static/site.css?v=…``.

    Raises:
        KeyError: there is no such file.
    """
    return f"/static/{name}?v={_VERSIONS[name]}"


class Assets(StaticFiles):
    """Serves the files. A browser may cache one for a year if it asked for exactly the version that it gets.

    During a rollout an old instance may be asked for the new version. Its answer must not be cached, or the old file would
    stay at the new address for a year.
    """

    def __init__(self) -> None:
        super().__init__(directory=_DIRECTORY)

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        """The file, with its ``Cache-Control``."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        asked = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("v", [""])[0]
        same = asked == _VERSIONS.get(Path(full_path).name)
        response.headers["cache-control"] = "public, max-age=31536000, immutable" if same else "no-cache"
        response.headers["x-content-type-options"] = "nosniff"
        return response
