"""The part of Amazon S3's HTTP API that the broker uses: GET, conditional PUT, DELETE, and listings by prefix.

Reference: https://docs.aws.amazon.com/AmazonS3/latest/API/. Addresses are `/<bucket>/<key>`; there is one bucket. The
signatures of requests are not verified; every request must carry the token, as S3's session token.
"""

from __future__ import annotations

import asyncio
import hmac
import re
import signal
from collections.abc import Sequence
from email.utils import format_datetime
from html import escape, unescape
from typing import Final
from urllib.parse import unquote

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from deploy.local.topic_files import BUCKET, TOKEN_HEADER
from deploy.local.topic_files.mend import mend
from deploy.local.topic_files.objects import KeyRefused, Listed, Objects, Outdated, version_of
from deploy.local.topic_files.settings import TopicFilesSettings

_MOST_LISTED: Final = 5000
"""Maximum objects of one listing. S3 has 1,000; the broker accepts more, and lists all batches of a partition per fetch."""

_DELETED_KEY: Final = re.compile(r"<Key>(.*?)</Key>", re.DOTALL)


async def run(settings: TopicFilesSettings) -> None:
    """Serve until SIGTERM or SIGINT."""
    server = uvicorn.Server(
        uvicorn.Config(
            application(Objects(settings.folder), token=settings.token.get_secret_value()),
            host=settings.host,
            port=settings.port,
            log_level="warning",
            access_log=False,
            lifespan="off",
        )
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn stops on these signals and then raises them again for the previous handlers.
        asyncio.get_running_loop().add_signal_handler(number, lambda: None)
    await server.serve()


def application(objects: Objects, *, token: str) -> Starlette:
    """Return the ASGI application over `objects`."""

    async def answer(request: Request) -> Response:
        if not hmac.compare_digest(request.headers.get(TOKEN_HEADER, ""), token):
            return _error(403, "AccessDenied")
        bucket, _, key = unquote(request.scope["raw_path"].decode("ascii")).removeprefix("/").partition("/")
        if bucket != BUCKET:
            return _error(404, "NoSuchBucket")
        try:
            return await _answer(objects, key, request)
        except KeyRefused:
            return _error(400, "InvalidRequest")

    return Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "HEAD", "PUT", "POST", "DELETE"])])


async def _answer(objects: Objects, key: str, request: Request) -> Response:
    match request.method, key:
        case "GET", "":
            return _list(objects, request)
        case "POST", "" if "delete" in request.query_params:
            return _delete(
                objects, [unescape(found) for found in _DELETED_KEY.findall((await request.body()).decode())]
            )
        case "POST", "" if "mend" in request.query_params:  # our own, not S3's
            return JSONResponse(mend(objects))
        case "PUT", str():
            return _put(objects, key, await request.body(), request)
        case "DELETE", str():
            objects.delete(key)
            return Response(status_code=204)
        case (("GET" | "HEAD"), str()):
            return _get(objects, key, request)
        case _:
            return _error(501, "NotImplemented")


def _get(objects: Objects, key: str, request: Request) -> Response:
    content = objects.get(key)
    if content is None:
        return _error(404, "NoSuchKey")
    headers = {
        "etag": _quoted(version_of(content)),
        "last-modified": format_datetime(objects.modified(key), usegmt=True),
    }
    if request.headers.get("if-none-match") == headers["etag"]:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers)


def _put(objects: Objects, key: str, content: bytes, request: Request) -> Response:
    expected = request.headers.get("if-match")
    try:
        version = objects.put(
            key,
            content,
            must_be_new=request.headers.get("if-none-match") == "*",
            must_match=None if expected is None else expected.strip('"'),
        )
    except Outdated:
        return _error(412, "PreconditionFailed")
    return Response(headers={"etag": _quoted(version)})


def _delete(objects: Objects, keys: Sequence[str]) -> Response:
    for key in keys:
        objects.delete(key)
    deleted = "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys)
    return _xml(f"<DeleteResult>{deleted}</DeleteResult>")


def _list(objects: Objects, request: Request) -> Response:
    prefix = request.query_params.get("prefix", "")
    after = request.query_params.get("continuation-token") or request.query_params.get("start-after", "")
    listed, is_more = objects.find(prefix, after=after, at_most=_MOST_LISTED)
    token = f"<NextContinuationToken>{escape(listed[-1].key)}</NextContinuationToken>" if is_more else ""
    return _xml(
        f"<ListBucketResult><IsTruncated>{str(is_more).lower()}</IsTruncated>{token}"
        f"{''.join(_contents(listed, prefix, request.query_params.get('delimiter')))}</ListBucketResult>"
    )


def _contents(listed: Sequence[Listed], prefix: str, delimiter: str | None) -> list[str]:
    """Return the entries of a listing; with a delimiter, deeper keys are grouped by their common prefix."""
    entries: dict[str, str] = {}
    for found in listed:
        folder, cut, _ = found.key.removeprefix(prefix).partition(delimiter) if delimiter else (found.key, "", "")
        if cut:
            common = escape(f"{prefix}{folder}{cut}")
            entries[f"{folder}{cut}"] = f"<CommonPrefixes><Prefix>{common}</Prefix></CommonPrefixes>"
        else:
            entries[found.key] = (
                f"<Contents><Key>{escape(found.key)}</Key><Size>{found.size}</Size>"
                f"<LastModified>{found.modified.isoformat().replace('+00:00', 'Z')}</LastModified></Contents>"
            )
    return list(entries.values())


def _quoted(version: str) -> str:
    return f'"{version}"'


def _xml(body: str, status: int = 200) -> Response:
    return Response(body, status_code=status, media_type="application/xml")


def _error(status: int, code: str) -> Response:
    return _xml(f"<Error><Code>{code}</Code></Error>", status)
