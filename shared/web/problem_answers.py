"""Turns a `shared.web.problems.Problem` into a Starlette response."""

from __future__ import annotations

from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from shared.web.problems import PROBLEM_JSON, Problem


def answer_to(problem: Problem) -> Response:
    """Return the response for `problem`."""
    headers = {"x-content-type-options": "nosniff", **problem.headers}
    if problem.retry_after is not None:
        headers["retry-after"] = str(problem.retry_after)
    return JSONResponse(problem.body(), problem.status, headers, media_type=PROBLEM_JSON)


async def problem_response(_: Request, error: Exception) -> Response:
    """Handle a `Problem`; a Starlette exception handler."""
    assert isinstance(error, Problem)
    return answer_to(error)


async def http_exception_response(_: Request, error: Exception) -> Response:
    """Return Starlette's own errors (404, 405) as problem details."""
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    return answer_to(Problem(error.status_code, code, str(error.detail), headers=error.headers))


EXCEPTION_HANDLERS: dict[Any, Any] = {Problem: problem_response, HTTPException: http_exception_response}
"""For `starlette.applications.Starlette(exception_handlers=...)`."""
