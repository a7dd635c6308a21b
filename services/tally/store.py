"""The live counts in Redis: every command that tally sends there. The Lua files state their contracts.

All keys of a petition carry ``{petition id}``, so on a cluster they share a slot and a script may touch them together.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from typing import Any

from redis.asyncio import Redis

from services.tally.counting import Step, minute_text
from shared.events import TallyUpdated
from shared.failpoints import failpoint

_SHOWN_MINUTES = 60
_SHADOW_SECONDS = 600
"""A rebuild that was killed leaves its shadow keys; they go by themselves."""


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
class Refused:
    """A step was not applied: the fences are elsewhere. Only the lanes of the step are given."""

    fences: dict[int, int]


@dataclass(frozen=True, slots=True)
class TallyState:
    """A whole tally: what the ledger says it should be, or what Redis has."""

    count: int
    revision: int
    fences: dict[int, int]
    countries: dict[str, int]
    minutes: dict[int, int]


def _script(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _keys(petition_id: str) -> tuple[str, str]:
    return f"tally:{{{petition_id}}}", f"tally:{{{petition_id}}}:minutes"


class TallyStore:
    """The tallies in Redis or Valkey."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._apply = redis.register_script(_script("apply.lua"))
        self._announced = redis.register_script(_script("announced.lua"))
        self._swap = redis.register_script(_script("swap.lua"))
        self._read = redis.register_script(_script("read.lua"))

    async def apply(self, steps: Sequence[tuple[str, Step, Sequence[int]]]) -> list[Applied | Refused]:
        """Apply steps of several petitions in one round trip; each is atomic by itself.

        Args:
            steps: (petition id, step, rising thresholds of the petition's milestones).

        Raises:
            redis.exceptions.RedisError, OSError: some steps may have been applied; repeating is safe.
        """
        async with self._redis.pipeline(transaction=False) as pipe:
            for petition_id, step, thresholds in steps:
                await self._apply(keys=_keys(petition_id), args=[_encode(step, thresholds)], client=pipe)
            replies = await pipe.execute()
        return [_applied(petition_id, reply) for (petition_id, _, _), reply in zip(steps, replies, strict=True)]

    async def mark_announced(self, petition_id: str, thresholds: Iterable[int]) -> None:
        """Mark milestones as announced."""
        await self._announced(keys=_keys(petition_id)[:1], args=[str(threshold) for threshold in thresholds])

    async def tallies(self, petition_ids: Sequence[str]) -> dict[str, TallyUpdated]:
        """The tallies as they stand, in one round trip; a petition without signatures has count 0 and revision 0.

        Raises:
            redis.exceptions.RedisError, OSError: Redis is away.
        """
        if not petition_ids:
            return {}
        async with self._redis.pipeline(transaction=False) as pipe:
            for petition_id in petition_ids:
                await self._read(keys=_keys(petition_id), args=[_SHOWN_MINUTES], client=pipe)
            replies = await pipe.execute()
        return {
            petition_id: _snapshot(petition_id, _pairs(fields), _pairs(minutes))
            for petition_id, (fields, minutes) in zip(petition_ids, replies, strict=True)
        }

    async def state(self, petition_id: str) -> TallyState:
        """The whole tally as stored, fences and all minutes included, in one consistent piece."""
        tally, by_minute = _keys(petition_id)
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.hgetall(tally)
            pipe.hgetall(by_minute)
            fields, minutes = await pipe.execute()
        return TallyState(
            count=int(fields.get("count", 0)),
            revision=int(fields.get("revision", 0)),
            fences={int(lane): position for lane, position in _prefixed(fields, "fence:").items()},
            countries=_prefixed(fields, "country:"),
            minutes={int(minute): int(number) for minute, number in minutes.items()},
        )

    async def swap_in(self, petition_id: str, state: TallyState, *, force: bool = False) -> bool:
        """Put a rebuilt state in place of the stored one.

        Returns:
            False when the stored tally has counted facts that `state` does not include, or the rebuilt one did not last
            until it could be swapped in: rebuild from a newer snapshot.
        """
        tally, by_minute = _keys(petition_id)
        token = secrets.token_hex(8)
        shadow, shadow_minutes = f"{tally}:shadow:{token}", f"{by_minute}:shadow:{token}"
        minutes = [(str(minute), str(number)) for minute, number in state.minutes.items() if number]
        if state.revision:
            await self._write_shadow(shadow, list(_fields(state).items()))
        for start in range(0, len(minutes), 5_000):  # a long-lived petition has hundreds of thousands
            await self._write_shadow(shadow_minutes, minutes[start : start + 5_000])
        await failpoint("tally.shadow_written")
        swapped = await self._swap(
            keys=[tally, by_minute, shadow, shadow_minutes],
            args=["force" if force else "guarded", state.revision, len(minutes)],
        )
        return bool(swapped)

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
            "changes": step.changes,
            "countries": step.countries,
            "minutes": step.minutes,
            "thresholds": list(thresholds),
            "now": time.time_ns() // 1_000_000,
        },
        separators=(",", ":"),
    )


def _applied(petition_id: str, reply: list[int]) -> Applied | Refused:
    if reply[0] == 0:
        return Refused(dict(zip(reply[1::2], reply[2::2], strict=True)))
    milestones = zip(*(reply[start::4] for start in range(3, 7)), strict=True)
    return Applied(
        reply[1],
        reply[2],
        tuple(
            Reached(petition_id, threshold, count, revision, datetime.fromtimestamp(milliseconds / 1000, UTC))
            for threshold, count, revision, milliseconds in milestones
        ),
    )


def _fields(state: TallyState) -> dict[str, str]:
    fields = {
        "count": state.count,
        "revision": state.revision,
        "updated_at": time.time_ns() // 1_000_000,
        "latest": max(state.minutes, default=0),
        **{f"fence:{lane}": position for lane, position in state.fences.items()},
        **{f"country:{code}": number for code, number in state.countries.items() if number},
    }
    return {name: str(value) for name, value in fields.items()}


def _snapshot(petition_id: str, fields: Mapping[str, str], minutes: Mapping[str, str]) -> TallyUpdated:
    # Facts of one signer in two lanes, as after partitions were added, may pass each other: a moment of less than nobody.
    count = max(0, int(fields.get("count", 0)))
    shown = {minute_text(int(minute)): int(number) for minute, number in minutes.items()}
    return TallyUpdated(
        petition_id=petition_id,
        count=count,
        revision=int(fields.get("revision", 0)),
        countries=dict(sorted(_prefixed(fields, "country:").items())),
        minutes=shown,
        earlier=count - sum(shown.values()),
        updated_at=datetime.fromtimestamp(int(fields.get("updated_at", 0)) / 1000, UTC),
    )


def _pairs(flat: Any) -> dict[str, str]:
    if isinstance(flat, dict):  # RESP3
        return flat
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _prefixed(fields: Mapping[str, str], prefix: str) -> dict[str, int]:
    return {name.removeprefix(prefix): int(value) for name, value in fields.items() if name.startswith(prefix)}
