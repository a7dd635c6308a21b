"""Sends a surge through all faults, until every submission was answered with 202."""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, Final

from deploy.demo.sending.client import Answer, Connection, ConnectionLost
from tests.faults.sending.surge import Accepted, Submission, Surge
from tests.faults.world import World

_CHUNK: Final = 120
_SINGLES: Final = 12
"""Submissions per chunk that are sent one by one; the others are in a batch per petition."""
_WORKERS: Final = 4
_TRICKLE_SECONDS: Final = 1.0
"""Seconds that each worker waits between two chunks while the surge is too early."""
_ANSWER_SECONDS: Final = 5.0
_AGAIN_SECONDS: Final = 0.2
_GIVE_UP_SECONDS: Final = 90.0


class NotAccepted(RuntimeError):
    """ingest refused a valid submission, accepted an excluded one, or did not accept one however often it was sent."""


class Sender:
    """Sends submissions to any instance of ingest, and retries at another one without an answer or after a 503.

    Args:
        on_accepted: called with the number of submissions of the surge accepted so far.
        too_early: called with that number before more is sent; while it returns true, the surge is slowed down.
    """

    def __init__(
        self,
        world: World,
        surge: Surge,
        *,
        on_accepted: Callable[[int], None] = lambda _: None,
        too_early: Callable[[int], bool] = lambda _: False,
    ) -> None:
        self._world, self._surge = world, surge
        self._on_accepted, self._too_early = on_accepted, too_early
        self._headers = {"X-API-Key": world.api_key}
        self._accepted = 0
        self.answers: defaultdict[int, int] = defaultdict(int)  # by status; 0 for no answer

    async def send(self, submissions: Sequence[Submission], *, rate: float) -> None:
        """Send all of them, `rate` a second at most.

        Raises:
            NotAccepted: one is not accepted.
        """
        self._accepted = 0
        chunks = iter(_paced(submissions, rate))
        async with asyncio.TaskGroup() as group:
            for _ in range(_WORKERS):
                group.create_task(self._work(chunks))

    async def send_one(self, submission: Submission) -> str:
        """Send one submission; return the signature id.

        Raises:
            NotAccepted: it is not accepted.
        """
        connections = _Connections(self._world)
        try:
            signature_id = await self._single(connections, submission)
        finally:
            connections.close()
        if signature_id is None:
            raise NotAccepted(f"{submission.petition_id} does not take this signer")
        return signature_id

    async def _work(self, chunks: Iterator[tuple[float, Sequence[Submission]]]) -> None:
        connections = _Connections(self._world)
        try:
            for due, chunk in chunks:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                await self._while_too_early()
                for submission in chunk[:_SINGLES]:
                    await self._single(connections, submission)
                    self._note(1)
                by_petition: defaultdict[str, list[Submission]] = defaultdict(list)
                for submission in chunk[_SINGLES:]:
                    by_petition[submission.petition_id].append(submission)
                for petition_id, lines in by_petition.items():
                    await self._batch(connections, petition_id, lines)
                    self._note(len(lines))
        finally:
            connections.close()

    async def _while_too_early(self) -> None:
        until = time.monotonic() + _TRICKLE_SECONDS
        while self._too_early(self._accepted) and time.monotonic() < until:
            await asyncio.sleep(0.02)

    def _note(self, accepted: int) -> None:
        self._accepted += accepted
        self._on_accepted(self._accepted)

    def _keep(self, signature_id: str, submission: Submission) -> None:
        if not self._surge.may_count(submission.petition_id, submission.person):
            raise NotAccepted(f"ingest took a signer whom {submission.petition_id} does not take")
        self._surge.accepted[signature_id] = Accepted(submission.petition_id, submission.signer)

    def _is_turned_away(self, submission: Submission, problem: dict[str, Any]) -> bool:
        """Whether ingest refuses a signer whose address the petition blocks, as it must."""
        codes = [error["code"] for error in problem.get("errors", ())]
        return codes == ["email_domain_blocked"] and not self._surge.may_count(
            submission.petition_id, submission.person
        )

    async def _single(self, connections: _Connections, submission: Submission) -> str | None:
        """The signature id; None if the signer is refused, as expected."""
        body = {name: value for name, value in submission.body.items() if name != "idempotency_key"}
        headers = {**self._headers, "Content-Type": "application/json", "Idempotency-Key": submission.key}
        path = f"/v1/petitions/{submission.petition_id}/signatures"
        async for answer in self._answers(connections, path, json.dumps(body).encode(), headers):
            if answer.status == 202:
                signature_id = str(answer.json()["signature_id"])
                self._keep(signature_id, submission)
                return signature_id
            if answer.status == 422 and self._is_turned_away(submission, answer.json()):
                return None
            _check_transient(answer.status, answer.body)
        raise NotAccepted(f"a signature for {submission.petition_id} was not accepted in {_GIVE_UP_SECONDS:.0f} s")

    async def _batch(self, connections: _Connections, petition_id: str, lines: Sequence[Submission]) -> None:
        pending = list(lines)
        headers = {**self._headers, "Content-Type": "application/x-ndjson"}
        path = f"/v1/petitions/{petition_id}/signatures/batch"
        deadline = time.monotonic() + _GIVE_UP_SECONDS
        while pending and time.monotonic() < deadline:
            body = "\n".join(json.dumps(line.body) for line in pending).encode()
            async for answer in self._answers(connections, path, body, headers):
                if answer.status == 207:
                    break
                _check_transient(answer.status, answer.body)
            else:
                break
            again = []
            for line, result in zip(pending, answer.json()["results"], strict=True):
                if result["status"] == 202:
                    self._keep(result["signature_id"], line)
                elif not self._is_turned_away(line, result["problem"]):
                    _check_transient(result["status"], json.dumps(result).encode())
                    again.append(line)
            pending = again
        if pending:
            raise NotAccepted(f"{len(pending)} lines for {petition_id} were not accepted in {_GIVE_UP_SECONDS:.0f} s")

    async def _answers(
        self, connections: _Connections, path: str, body: bytes, headers: dict[str, str]
    ) -> AsyncIterator[Answer]:
        """Send the request to one instance after the other until the time is over; yields every answer."""
        deadline = time.monotonic() + _GIVE_UP_SECONDS
        while time.monotonic() < deadline:
            connection = connections.current()
            try:
                async with asyncio.timeout(_ANSWER_SECONDS):
                    answer = await connection.post(path, body, headers)
            except (ConnectionLost, OSError, TimeoutError):
                connection.close()
                self.answers[0] += 1
            else:
                self.answers[answer.status] += 1
                yield answer
            connections.turn_to_another()
            await asyncio.sleep(_AGAIN_SECONDS)


class _Connections:
    """A connection to each instance of ingest; an instance is used as long as it accepts."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._open: dict[str, Connection] = {}
        self._turn = 0

    def current(self) -> Connection:
        urls = self._world.ingest_urls
        url = urls[self._turn % len(urls)]
        return self._open.setdefault(url, Connection(url))

    def turn_to_another(self) -> None:
        self._turn += 1

    def close(self) -> None:
        for connection in self._open.values():
            connection.close()


def _check_transient(status: int, body: bytes) -> None:
    if status not in (429, 503):
        raise NotAccepted(f"ingest answered {status} to a good submission: {body[:300]!r}")


def _paced(submissions: Sequence[Submission], rate: float) -> Iterator[tuple[float, Sequence[Submission]]]:
    """Chunks, and the moment (of the monotonic clock) before which each must not be sent."""
    began = time.monotonic()
    for start in range(0, len(submissions), _CHUNK):
        yield began + start / rate, submissions[start : start + _CHUNK]
