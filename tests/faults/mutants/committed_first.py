"""verify commits the offsets of a batch once it is decided, and publishes its facts afterwards."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from aiokafka import ConsumerRecord

from services.verify.deciding.outcome import Decided
from services.verify.deciding.rules import Judgement, SubmittedCommand
from services.verify.handlers import VerifyHandler
from shared.kafka.consuming.consumer import BatchConsumer
from tests.faults.mutants.mutant import Mutant, replace

_commit: ContextVar[Callable[[], Awaitable[None]]] = ContextVar("commit")
"""Commits the offsets of the current batch."""


def _break() -> None:
    def knowing_how_to_commit(handle: Callable[..., Awaitable[None]]) -> Any:
        async def _handle(self: BatchConsumer[Any], records: tuple[ConsumerRecord[Any, Any], ...], epoch: int) -> None:
            _commit.set(lambda: self._commit(records, epoch))
            await handle(self, records, epoch)

        return _handle

    def committing_at_once(apply: Callable[..., Awaitable[Decided]]) -> Any:
        async def _apply(self: VerifyHandler, judged: list[tuple[SubmittedCommand, Judgement | None]]) -> Decided:
            decided = await apply(self, judged)
            await _commit.get()()
            return decided

        return _apply

    replace(BatchConsumer, "_handle", knowing_how_to_commit)
    replace(VerifyHandler, "_apply", committing_at_once)


MUTANT = Mutant(
    name="committed-before-published",
    broken="verify commits the offset before it publishes the facts",
    service="verify",
    break_it=_break,
)
