"""The tallies in Redis or Valkey: all commands that tally sends there, and no rules. Each Lua file states its contract.

All keys of a petition contain the hash tag ``{petition id}``, so in a cluster they share a slot, and a script may use them
together.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib import resources
from typing import Any, Final

from pydantic import ValidationError
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from services.tally.counting.step import Step, minute_text
from services.tally.counting.tally import Applied, Damaged, DamagedTally, NotApplied, Reached, Swap, TallyState
from shared.contract.events import TallyUpdated
from shared.runtime.failpoints import failpoint
from shared.runtime.failures import is_transient

_SHOWN_MINUTES = 60
_SHADOW_SECONDS = 600
"""Time to live of shadow keys: those of a rebuild that was killed expire."""

_DAY_MINUTES = 24 * 60
_DAY_MILLISECONDS = _DAY_MINUTES * 60_000


def _script(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _keys(petition_id: str) -> tuple[str, str]:
    return f"tally:{{{petition_id}}}", f"tally:{{{petition_id}}}:minutes"


class TallyStore:
    """The tallies in Redis or Valkey.

    Args:
        redis: The connection.
        begun: Returns the ``updated_at`` of a petition without signatures; None if the petition is not known.
    """

    def __init__(self, redis: Redis, *, begun: Callable[[str], datetime | None] = lambda _: None) -> None:
        self._redis, self._begun = redis, begun
        self._apply = redis.register_script(_script("apply.lua"))
        self._announced = redis.register_script(_script("announced.lua"))
        self._swap = redis.register_script(_script("swap.lua"))
        self._read = redis.register_script(_script("read.lua"))

    async def apply(self, steps: Sequence[tuple[str, Step, Sequence[int]]]) -> list[Applied | NotApplied | Damaged]:
        """Apply steps of several petitions in one round trip. Each step is atomic; together they are not.

        Args:
            steps: (petition id, step, rising thresholds of the petition's milestones).

        Returns:
            One result per step, in the same order.

        Raises:
            redis.exceptions.RedisError, OSError: some steps may have been applied; a retry is safe.
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
        """Delete the mark of a milestone that was recorded in Redis and not announced; the next step decides it anew."""
        await self._redis.hdel(_keys(petition_id)[0], f"milestone:{threshold}")

    async def tallies(self, petition_ids: Sequence[str]) -> dict[str, TallyUpdated]:
        """The present tallies by petition id, in one round trip. A petition without signatures has count 0 and revision 0.

        Petitions whose tallies are damaged are left out.

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
        """The whole stored tally, with its fences and all minutes, read in one transaction.

        Raises:
            DamagedTally: what is stored is not a valid tally.
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
        if _number(fields, "latest") > seconds // 60 + _DAY_MINUTES:  # by Redis' clock, which wrote it
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
        """Replace the stored tally by a rebuilt one.

        Args:
            petition_id: The petition.
            state: The rebuilt tally, from one snapshot of the ledger.
            force: Replace it whatever the stored fences and version are.
            given_up: By lane, stored fences that are known not to be in the ledger, and may be replaced.

        Returns:
            The result. The swap is not done if the stored tally has counted facts that `state` does not include, if its
            version is higher, or if the rebuilt keys expired before the swap.

        Raises:
            redis.exceptions.RedisError, OSError: Redis is away; a retry is safe.
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
        async with self._redis.pipeline(
            transaction=True
        ) as pipe:  # so that no shadow key is left without its time to live
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
    """Whether a reply is the error of a command or script that met a value of the wrong type.

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
        # A minute far in the future would stay the newest, and the hour before it would be empty.
        "latest": max((minute for minute in state.minutes if minute <= now + _DAY_MINUTES), default=0),
        **({"epoch": state.epoch} if state.epoch else {}),
        **{f"fence:{lane}": position for lane, position in state.fences.items()},
        **{f"country:{code}": number for code, number in state.countries.items() if number},
    }
    return {name: str(value) for name, value in fields.items()}


def _snapshot(
    petition_id: str, fields: Mapping[str, str], minutes: Mapping[str, str], now: int, begun: datetime | None = None
) -> TallyUpdated:
    # After partitions were added, a signer's facts in two lanes may overtake each other: the count may briefly be below 0.
    count = max(0, _number(fields, "count"))
    shown = {minute_text(_minute(minute)): _number(minutes, minute) for minute in minutes}
    epoch = _number(fields, "epoch")
    if epoch > now + _DAY_MILLISECONDS:
        raise DamagedTally("epoch")  # readers would refuse it
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
    """The time of the last change of the count; for one that never changed, that of its petition."""
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
