"""The live counts in Redis: every command that tally sends there. The Lua files state their contracts.

All keys of a petition carry ``{petition id}``, so on a cluster they share a slot and a script may touch them together.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import resources
from typing import Any, Final

from pydantic import ValidationError
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from services.tally.counting.step import Step, minute_text
from shared.contract.events import TallyUpdated
from shared.kafka.errors import is_transient
from shared.runtime.failpoints import failpoint

_SHOWN_MINUTES = 60
_SHADOW_SECONDS = 600
"""A rebuild that was killed leaves its shadow keys; they go by themselves."""

_DAY_MINUTES = 24 * 60
_DAY_MILLISECONDS = _DAY_MINUTES * 60_000


@dataclass(frozen=True, slots=True)
class Reached:
    """A milestone that is recorded and not yet announced."""

    petition_id: str
    threshold: int
    count: int
    revision: int
    reached_at: datetime


@dataclass(frozen=True, slots=True)
class Applied:
    """A step was applied."""

    count: int
    revision: int
    unannounced: tuple[Reached, ...]


@dataclass(frozen=True, slots=True)
class NotApplied:
    """A step was not applied: the fences are elsewhere. Only the lanes of the step are given."""

    fences: dict[int, int]
    missing: bool = field(default=False, compare=False)
    """There is no tally of this petition."""


@dataclass(frozen=True, slots=True)
class Damaged:
    """What Redis has of a petition is no tally: a value of the wrong type, or no number. It has to be rebuilt."""

    what: str


class DamagedTally(Exception):
    """What Redis has of a petition is no tally. The message names the field."""


@dataclass(frozen=True, slots=True)
class TallyState:
    """A whole tally: what the ledger says it should be, or what Redis has."""

    count: int
    revision: int
    fences: dict[int, int]
    countries: dict[str, int]
    minutes: dict[int, int]
    epoch: int = 0
    """See `shared.contract.events.TallyUpdated`."""
    peak: int = field(default=0, compare=False)
    """The highest count that the ledger ever had, by the times of its rows. Of a state that was read from the ledger."""

    @property
    def version(self) -> tuple[int, int]:
        """Of two states of one petition, the one with the higher version holds."""
        return self.epoch, self.revision


@dataclass(frozen=True, slots=True)
class Swap:
    """What became of a rebuilt state; true if it was put in place."""

    done: bool
    above: dict[int, int] = field(default_factory=dict)
    """Stored fences that are above the rebuilt ones."""
    version: tuple[int, int] | None = None
    """The stored version, where it is higher than the rebuilt one."""

    def __bool__(self) -> bool:
        return self.done


def _script(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _keys(petition_id: str) -> tuple[str, str]:
    return f"tally:{{{petition_id}}}", f"tally:{{{petition_id}}}:minutes"


class TallyStore:
    """The tallies in Redis or Valkey.

    Args:
        redis: Where they are.
        begun: The time from which a petition has no signatures, until it has one; None if that is not known.
    """

    def __init__(self, redis: Redis, *, begun: Callable[[str], datetime | None] = lambda _: None) -> None:
        self._redis, self._begun = redis, begun
        self._apply = redis.register_script(_script("apply.lua"))
        self._announced = redis.register_script(_script("announced.lua"))
        self._swap = redis.register_script(_script("swap.lua"))
        self._read = redis.register_script(_script("read.lua"))

    async def apply(self, steps: Sequence[tuple[str, Step, Sequence[int]]]) -> list[Applied | NotApplied | Damaged]:
        """Apply steps of several petitions in one round trip; each is atomic by itself.

        Args:
            steps: (petition id, step, rising thresholds of the petition's milestones).

        Raises:
            redis.exceptions.RedisError, OSError: some steps may have been applied; repeating is safe.
        """
        async with self._redis.pipeline(transaction=False) as pipe:
            for petition_id, step, thresholds in steps:
                await self._apply(keys=_keys(petition_id), args=[_encode(step, thresholds)], client=pipe)
            replies = await pipe.execute(raise_on_error=False)
        return [_applied(petition_id, reply) for (petition_id, _, _), reply in zip(steps, replies, strict=True)]

    async def mark_announced(self, petition_id: str, thresholds: Iterable[int]) -> None:
        """Mark milestones as announced."""
        await self._announced(keys=_keys(petition_id)[:1], args=[str(threshold) for threshold in thresholds])

    async def forget_milestone(self, petition_id: str, threshold: int) -> None:
        """Take back a milestone that was recorded here and not announced; the next step decides it anew."""
        await self._redis.hdel(_keys(petition_id)[0], f"milestone:{threshold}")

    async def tallies(self, petition_ids: Sequence[str]) -> dict[str, TallyUpdated]:
        """The tallies as they stand, in one round trip; a petition without signatures has count 0 and revision 0.

        A petition whose tally is damaged is left out.

        Raises:
            redis.exceptions.RedisError, OSError: Redis is away.
        """
        if not petition_ids:
            return {}
        async with self._redis.pipeline(transaction=False) as pipe:
            for petition_id in petition_ids:
                await self._read(keys=_keys(petition_id), args=[_SHOWN_MINUTES], client=pipe)
            replies = await pipe.execute(raise_on_error=False)
        found = {}
        for petition_id, reply in zip(petition_ids, replies, strict=True):
            if not _is_damage(reply):
                fields, minutes, now = reply
                with suppress(DamagedTally):
                    found[petition_id] = _snapshot(
                        petition_id, _pairs(fields), _pairs(minutes), now, self._begun(petition_id)
                    )
        return found

    async def state(self, petition_id: str) -> TallyState:
        """The whole tally as stored, fences and all minutes included, in one consistent piece.

        Raises:
            DamagedTally: what is stored is no tally.
            redis.exceptions.RedisError, OSError: Redis is away.
        """
        tally, by_minute = _keys(petition_id)
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.hgetall(tally)
            pipe.hgetall(by_minute)
            pipe.time()
            fields, minutes, (seconds, _) = await pipe.execute(raise_on_error=False)
        for key, reply in ((tally, fields), (by_minute, minutes)):
            if _is_damage(reply):
                raise DamagedTally(f"{key} is no hash")
        if _number(fields, "latest") > seconds // 60 + _DAY_MINUTES:  # by Redis' clock, as it was written
            raise DamagedTally("latest is ahead: no minute would be shown")
        return TallyState(
            count=_number(fields, "count"),
            revision=_number(fields, "revision"),
            fences={_lane(name): _number(fields, name) for name in fields if name.startswith("fence:")},
            countries=_countries(fields),
            minutes={_minute(minute): _number(minutes, minute) for minute in minutes},
            epoch=_number(fields, "epoch"),
        )

    async def swap_in(
        self, petition_id: str, state: TallyState, *, force: bool = False, given_up: Mapping[int, int] | None = None
    ) -> Swap:
        """Put a rebuilt state in place of the stored one.

        Args:
            petition_id: Whose.
            state: From one snapshot of the ledger.
            force: Whatever the stored fences and version say.
            given_up: Stored fences, by lane, that are known to be none of the ledger's.

        Returns:
            Not done when the stored tally has counted facts that `state` does not include, when its version is higher,
            or when the rebuilt one did not last until it could be swapped in.
        """
        tally, by_minute = _keys(petition_id)
        token = secrets.token_hex(8)
        shadow, shadow_minutes = f"{tally}:shadow:{token}", f"{by_minute}:shadow:{token}"
        minutes = [(str(minute), str(number)) for minute, number in state.minutes.items() if number]
        if state.revision or state.epoch:
            now, _ = await self._redis.time()
            await self._write_shadow(shadow, list(_fields(state, int(now) // 60).items()))
        for start in range(0, len(minutes), 5_000):  # a long-lived petition has hundreds of thousands
            await self._write_shadow(shadow_minutes, minutes[start : start + 5_000])
        await failpoint("tally.shadow_written")
        outcome, *rest = await self._swap(
            keys=[tally, by_minute, shadow, shadow_minutes],
            args=[
                "force" if force else "guarded",
                state.revision,
                len(minutes),
                state.epoch,
                json.dumps(dict(given_up or {})),
            ],
        )
        if outcome == 2:
            return Swap(False, version=(rest[0], rest[1]))
        return Swap(outcome == 1, above=dict(zip(rest[::2], rest[1::2], strict=True)))

    async def _write_shadow(self, key: str, fields: list[tuple[str, str]]) -> None:
        async with self._redis.pipeline(transaction=True) as pipe:  # never a shadow key without an end
            pipe.hset(key, items=[part for field in fields for part in field])
            pipe.expire(key, _SHADOW_SECONDS)
            await pipe.execute()


def _encode(step: Step, thresholds: Sequence[int]) -> str:
    return json.dumps(
        {
            "lanes": step.lanes,
            "delta": step.delta,
            "peak": step.peak,
            "highest": step.highest,
            "first": step.first,
            "changes": step.changes,
            "countries": step.countries,
            "minutes": step.minutes,
            "thresholds": list(thresholds),
        },
        separators=(",", ":"),
    )


def _is_damage(reply: object) -> bool:
    """Whether a script met a value of the wrong type.

    Raises:
        redis.exceptions.RedisError, OSError: the reply is another error.
    """
    if not isinstance(reply, Exception):
        return False
    text = str(reply)
    if (
        isinstance(reply, ResponseError)
        and not is_transient(reply)
        and any(mark in text for mark in ("WRONGTYPE", "not an integer", "overflow", "attempt to "))
    ):
        return True
    raise reply


def _applied(petition_id: str, reply: Any) -> Applied | NotApplied | Damaged:
    if _is_damage(reply):
        return Damaged("a value of the wrong type")
    if reply[0] == 2:
        return Damaged(reply[1])
    if reply[0] == 0:
        return NotApplied(dict(zip(reply[2::2], reply[3::2], strict=True)), missing=reply[1] == 0)
    milestones = zip(*(reply[start::4] for start in range(3, 7)), strict=True)
    try:
        unannounced = tuple(
            Reached(petition_id, threshold, count, revision, datetime.fromtimestamp(milliseconds / 1000, UTC))
            for threshold, count, revision, milliseconds in milestones
        )
    except (ValueError, OverflowError, OSError):
        return Damaged("milestone")
    return Applied(reply[1], reply[2], unannounced)


def _fields(state: TallyState, now: int) -> dict[str, str]:
    fields = {
        "count": state.count,
        "revision": state.revision,
        # A minute far ahead would be the newest for ever, and the hour before it would be empty.
        "latest": max((minute for minute in state.minutes if minute <= now + _DAY_MINUTES), default=0),
        **({"epoch": state.epoch} if state.epoch else {}),
        **{f"fence:{lane}": position for lane, position in state.fences.items()},
        **{f"country:{code}": number for code, number in state.countries.items() if number},
    }
    return {name: str(value) for name, value in fields.items()}


def _snapshot(
    petition_id: str, fields: Mapping[str, str], minutes: Mapping[str, str], now: int, begun: datetime | None = None
) -> TallyUpdated:
    # Facts of one signer in two lanes, as after partitions were added, may pass each other: a moment of less than nobody.
    count = max(0, _number(fields, "count"))
    shown = {minute_text(_minute(minute)): _number(minutes, minute) for minute in minutes}
    epoch = _number(fields, "epoch")
    if epoch > now + _DAY_MILLISECONDS:
        raise DamagedTally("epoch")  # readers would not take it
    try:
        return TallyUpdated(
            petition_id=petition_id,
            count=count,
            epoch=epoch,
            revision=_number(fields, "revision"),
            countries=dict(sorted(_countries(fields).items())),
            minutes=shown,
            earlier=count - sum(shown.values()),
            updated_at=_updated_at(_number(fields, "updated_at"), begun, now),
        )
    except (ValidationError, OverflowError, ValueError, OSError):
        raise DamagedTally("a number that cannot be") from None


def _updated_at(milliseconds: int, begun: datetime | None, now: int) -> datetime:
    """When the count became what it is. One that never changed is as old as its petition."""
    if milliseconds == 0 and begun is not None:
        return begun.astimezone(UTC)
    return datetime.fromtimestamp((milliseconds or now) / 1000, UTC)


def _pairs(flat: Any) -> dict[str, str]:
    if isinstance(flat, dict):  # RESP3
        return flat
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _number(fields: Mapping[str, str], name: str) -> int:
    text = fields.get(name, "0")
    if not _WHOLE.fullmatch(text):
        raise DamagedTally(name)
    return int(text)


_WHOLE: Final = re.compile(r"-?[0-9]{1,17}")


def _lane(name: str) -> int:
    lane = name.removeprefix("fence:")
    if not _WHOLE.fullmatch(lane) or not 0 <= int(lane) < 2**31:
        raise DamagedTally(name)
    return int(lane)


def _minute(name: str) -> int:
    if not _WHOLE.fullmatch(name):
        raise DamagedTally(f"minute {name[:20]}")
    return int(name)


def _countries(fields: Mapping[str, str]) -> dict[str, int]:
    return {name.removeprefix("country:"): _number(fields, name) for name in fields if name.startswith("country:")}
