"""Sends the surge: single requests, batches and poison, concurrently."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from aiokafka import AIOKafkaProducer

from deploy.demo.plan.poison import Poison
from deploy.demo.plan.submission import Submission
from deploy.demo.plan.surge import Batch, Single, Surge
from deploy.demo.sending.client import Answer, Connection
from deploy.demo.sending.progress import Progress
from deploy.demo.sending.requests import line, problem, refusal_reason, request_of, what_it_became
from shared.contract.topics import SIGNATURES_SUBMITTED

_SINGLE_WORKERS: Final = 96
"""Requests in flight: enough for ingest to fill its Kafka batches, far below the number at which it sheds load (2,000)."""
_BATCH_WORKERS: Final = 2
_GIVE_UP_SECONDS: Final = 60.0
"""How long one request is retried. A stack that does not answer for a minute will not answer later."""
_AGAIN_SECONDS: Final = 0.5
_POISON_SECONDS: Final = 0.05

_NOT_NOW: Final = frozenset({307, 429, 503})
"""307: a form of a browser, sent on to a page that says why it was refused. Those of the surge are right, so it is for now."""


class SendFailed(RuntimeError):
    """A request got no answer in spite of retries."""


class Sender:
    """Sends a surge to one ingest.

    Every request carries an idempotency key, so one that must be sent again (429, 503, connection lost) stays the same
    submission.
    """

    def __init__(
        self, surge: Surge, *, ingest_url: str, api_key: str, bootstrap_servers: str, security: Mapping[str, Any]
    ) -> None:
        self._surge, self._url, self._bootstrap, self._security = surge, ingest_url, bootstrap_servers, security
        # With a partner's key, because otherwise ingest's rate limit per client address would apply.
        self._headers = {"X-API-Key": api_key}
        self.progress = Progress(surge.submissions)

    async def send(self) -> None:
        """Send everything; returns when all of it was answered.

        Raises:
            SendFailed: ingest does not answer.
            aiokafka.errors.KafkaError: the poison could not be put on the topic.
        """
        singles = iter(enumerate(self._surge.singles))
        batches = iter(self._surge.batches)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._send_poison())
                for _ in range(_SINGLE_WORKERS):
                    group.create_task(self._send_singles(singles))
                for _ in range(_BATCH_WORKERS):
                    group.create_task(self._send_batches(batches))
        except* SendFailed as failures:
            raise failures.exceptions[0] from None
        self.progress.finished = time.monotonic()

    # ------------------------------------------------------------------------------------------------ one by one

    async def _send_singles(self, singles: Iterator[tuple[int, Single]]) -> None:
        connection, second = Connection(self._url), Connection(self._url)
        try:
            for number, single in singles:
                await self._send_single(connection, second, number, single)
        finally:
            connection.close()
            second.close()

    async def _send_single(self, connection: Connection, second: Connection, number: int, single: Single) -> None:
        submission = single.submission
        path = f"/v1/petitions/{submission.petition_id}/signatures"
        body, headers = request_of(single)
        headers = {**self._headers, **headers, "Idempotency-Key": f"demo-single-{number}"}
        if single.retried == "at once":
            answer, again = await asyncio.gather(
                self._post(connection, path, body, headers), self._post(second, path, body, headers)
            )
        else:
            answer = again = await self._post(connection, path, body, headers)
            if single.retried == "after":
                again = await self._post(connection, path, body, headers)
        self.progress.singles += 1
        self._note_single(submission, answer)
        if single.retried != "no":
            self.progress.retries += 1
            if what_it_became(again) != what_it_became(answer):
                self.progress.surprise(f"a retry of {path} was answered {again.status}, as another signature")

    def _note_single(self, submission: Submission, answer: Answer) -> None:
        self.progress.answered[submission.petition_id] += 1
        if answer.status in (202, 303):
            self.progress.accepted += 1
        elif 400 <= answer.status < 500:
            self._note_refusal(submission, problem(answer))
        else:
            self.progress.surprise(f"{submission.petition_id}: {answer.status} {answer.body[:200]!r}")

    def _note_refusal(self, submission: Submission, problem: dict[str, Any]) -> None:
        self.progress.refused.update((submission.petition_id, reason) for reason in [refusal_reason(problem)])

    # ------------------------------------------------------------------------------------------------ in batches

    async def _send_batches(self, batches: Iterator[Batch]) -> None:
        connection = Connection(self._url)
        try:
            for batch in batches:
                results = await self._send_batch(connection, batch)
                if batch.retried:
                    again = await self._send_batch(connection, batch)
                    self._compare(batch, results, again)
                for submission, result in zip(batch.lines, results, strict=True):
                    self._note_line(submission, result)
        finally:
            connection.close()

    async def _send_batch(self, connection: Connection, batch: Batch) -> list[dict[str, Any]]:
        """Send a batch, and lines of it again that were put off, until every line has its result."""
        path = f"/v1/petitions/{batch.petition_id}/signatures/batch"
        headers = {**self._headers, "Content-Type": "application/x-ndjson"}
        lines = [line(batch.number, place, submission) for place, submission in enumerate(batch.lines)]
        results: dict[int, dict[str, Any]] = {}
        open_places = list(range(len(lines)))
        for _ in range(int(_GIVE_UP_SECONDS / _AGAIN_SECONDS)):
            body = b"\n".join(lines[place] for place in open_places)
            answer = await self._post(connection, path, body, headers)
            found = answer.json().get("results", []) if answer.status < 300 else []
            if len(found) != len(open_places):
                raise SendFailed(
                    f"POST {path} of {len(open_places)} lines was answered {answer.status} {answer.body[:300]!r}"
                )
            results.update(zip(open_places, found, strict=True))
            open_places = [place for place in open_places if results[place]["status"] in _NOT_NOW]
            if not open_places:
                return [results[place] for place in range(len(lines))]
            self.progress.put_off += len(open_places)
            await asyncio.sleep(_AGAIN_SECONDS)
        raise SendFailed(f"POST {path}: {len(open_places)} lines were put off for a minute")

    def _compare(self, batch: Batch, results: Sequence[dict[str, Any]], again: Sequence[dict[str, Any]]) -> None:
        for result, other in zip(results, again, strict=True):
            self.progress.retries += result["status"] == 202
            if (result["status"], result.get("signature_id")) != (other["status"], other.get("signature_id")):
                self.progress.surprise(f"line {result['line']} of batch {batch.number}, retried, is another signature")

    def _note_line(self, submission: Submission, result: dict[str, Any]) -> None:
        self.progress.answered[submission.petition_id] += 1
        if result["status"] == 202:
            self.progress.accepted += 1
        elif 400 <= result["status"] < 500:
            self._note_refusal(submission, result["problem"])
        else:
            self.progress.surprise(f"a line for {submission.petition_id}: {result}")

    async def _post(self, connection: Connection, path: str, body: bytes, headers: dict[str, str]) -> Answer:
        """POST until there is an answer that will not change.

        Raises:
            SendFailed: there was none for a minute.
        """
        deadline = asyncio.get_running_loop().time() + _GIVE_UP_SECONDS
        while True:
            try:
                answer = await connection.post(path, body, headers)
            except OSError as error:
                why, wait = str(error), _AGAIN_SECONDS
            else:
                if answer.status not in _NOT_NOW:
                    return answer
                why = f"{answer.status} {answer.headers.get(b'location', b'')!r} {answer.body[:300]!r}"
                wait = answer.retry_after
            self.progress.put_off += 1
            if asyncio.get_running_loop().time() + wait > deadline:
                raise SendFailed(f"POST {path} got no answer for {_GIVE_UP_SECONDS:.0f} s; the last try: {why}")
            await asyncio.sleep(wait)

    # ---------------------------------------------------------------------------------------------------- poison

    async def _send_poison(self) -> None:
        """Send poison in step with the submissions, so that it is spread among the signatures."""
        if not self._surge.poison:
            return
        producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap, acks="all", request_timeout_ms=10_000, **self._security
        )
        await producer.start()
        try:
            while self.progress.poison < len(self._surge.poison):
                due = int(len(self._surge.poison) * self.progress.done)
                for record in self._surge.poison[self.progress.poison : due]:
                    await _produce(producer, record)
                    self.progress.poison += 1
                await asyncio.sleep(_POISON_SECONDS)
        finally:
            await producer.stop()


async def _produce(producer: AIOKafkaProducer, record: Poison) -> None:
    await producer.send_and_wait(
        SIGNATURES_SUBMITTED.name,
        value=record.value,
        key=record.key,
        headers=record.headers,
        partition=record.partition,
    )
