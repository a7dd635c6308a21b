"""Impossible states in Redis: keys and fields of one tally deleted, retyped, or set to wrong values."""

from __future__ import annotations

from random import Random
from typing import Final

from redis.asyncio import Redis

from shared.redis import INCARNATION_KEY
from tests.faults.impossible.act import Act, Acts, Do, Traces
from tests.faults.impossible.victim import NEVER, NEXT_MILESTONE, Victim

_acts = Acts("redis")

_EXPIRES_MS: Final = 300


def _tally(victim: Victim) -> str:
    return f"tally:{{{victim.petition_id}}}"


def _minutes(victim: Victim) -> str:
    return f"{_tally(victim)}:minutes"


async def _signs(victim: Victim) -> None:
    """A signature follows at once: it must count, now or after the tally has recovered."""
    await victim.sign(len(victim.signatures))


async def _fence(victim: Victim, random: Random) -> str:
    lanes = (await victim.truth()).fences
    return f"fence:{random.choice(sorted(lanes))}"


# ------------------------------------------------------------------------------------------------------------- whole keys


@_acts.add("tally-deleted")
async def _deleted(victim: Victim, _: Random, __: Traces) -> None:
    """The tally is deleted, but not its minutes, and the next signature may come in another lane."""
    async with victim.parts.redis() as redis:
        await redis.delete(_tally(victim))
    await _signs(victim)


@_acts.add("tally-gone-unsigned")
async def _gone(victim: Victim, _: Random, __: Traces) -> None:
    """All of it is deleted, and no signature follows."""
    async with victim.parts.redis() as redis:
        await redis.delete(_tally(victim), _minutes(victim))


@_acts.add("minutes-deleted")
async def _minutes_deleted(victim: Victim, _: Random, __: Traces) -> None:
    async with victim.parts.redis() as redis:
        await redis.delete(_minutes(victim))


@_acts.add("tally-expires")
async def _expires(victim: Victim, _: Random, __: Traces) -> None:
    """A tally with an end."""
    async with victim.parts.redis() as redis:
        await redis.pexpire(_tally(victim), _EXPIRES_MS)
        await redis.pexpire(_minutes(victim), _EXPIRES_MS)


@_acts.add("incarnation-deleted", touches=("redis",))
async def _incarnation(victim: Victim, _: Random, __: Traces) -> None:
    """Redis looks like another one, and has everything."""
    async with victim.parts.redis() as redis:
        await redis.delete(INCARNATION_KEY)


def _retyped(which: str, kind: str) -> Do:
    async def act(victim: Victim, _: Random, __: Traces) -> None:
        """A key of another type than ours."""
        key = _tally(victim) if which == "tally" else _minutes(victim)
        async with victim.parts.redis() as redis:
            await redis.delete(key)
            await _as(redis, key, kind)
        await _signs(victim)

    return act


async def _as(redis: Redis, key: str, kind: str) -> None:
    if kind == "string":
        await redis.set(key, "5")
    elif kind == "list":
        await redis.rpush(key, "5")
    else:
        await redis.zadd(key, {"5": 5})


for _which, _kind in (("tally", "string"), ("tally", "list"), ("minutes", "string"), ("minutes", "zset")):
    _acts.put(f"{_which}-is-a-{_kind}", _retyped(_which, _kind))


# ---------------------------------------------------------------------------------------------------------------- fields


def _without(field: str) -> Do:
    async def act(victim: Victim, random: Random, _: Traces) -> None:
        """A field of the tally is gone."""
        name = await _fence(victim, random) if field == "fence" else field
        async with victim.parts.redis() as redis:
            await redis.hdel(_tally(victim), name)
        await _signs(victim)

    return act


for _name, _field in (("count", "count"), ("revision", "revision"), ("fence", "fence"), ("country", "country:NL")):
    _acts.put(f"{_name}-field-deleted", _without(_field))


def _with(field: str, value: str, *, signs: bool = True) -> Do:
    async def act(victim: Victim, random: Random, _: Traces) -> None:
        """A field of the tally has a wrong value."""
        name = await _fence(victim, random) if field == "fence" else field
        async with victim.parts.redis() as redis:
            await redis.hset(_tally(victim), name, value)
        if signs:
            await _signs(victim)

    return act


for _name, _field, _value in (
    ("count-too-high", "count", "42"),
    ("count-beyond-a-milestone", "count", str(NEVER + 1)),
    ("count-below-nothing", "count", "-5"),
    ("count-a-word", "count", "abc"),
    ("count-endless", "count", "1e300"),
    ("count-empty", "count", ""),
    ("count-not-a-number", "count", "nan"),
    ("revision-a-word", "revision", "abc"),
    ("revision-far-ahead", "revision", str(10**15)),
    ("revision-behind", "revision", "1"),
    ("fence-too-high", "fence", str(10**6)),
    ("fence-far-too-high", "fence", str(2**53)),
    ("fence-too-low", "fence", "0"),
    ("fence-a-word", "fence", "abc"),
    ("fence-of-a-word", "fence:abc", "5"),
    ("country-a-word", "country:NL", "abc"),
    ("country-below-nothing", "country:NL", "-7"),
    ("latest-a-word", "latest", "abc"),
    ("latest-far-ahead", "latest", str(10**12)),
    ("updated-at-a-word", "updated_at", "abc"),
    ("updated-at-endless", "updated_at", str(10**18)),
    ("milestone-garbage", f"milestone:{NEVER}", "garbage"),
    ("milestone-half-garbage", f"milestone:{NEVER}", "reached:0:0:x"),
    ("milestone-reached-by-nobody", f"milestone:{NEVER}", f"reached:{NEVER}:{NEVER}:1764000000000"),
    ("milestone-at-the-end-of-time", f"milestone:{NEVER}", f"reached:{NEVER}:{NEVER}:99999999999999999"),
    ("milestone-next-garbage", f"milestone:{NEXT_MILESTONE}", "garbage"),
    ("milestone-next-of-nothing", f"milestone:{NEXT_MILESTONE}", "reached:0:0:1764000000000"),
    ("milestone-next-at-the-end-of-time", f"milestone:{NEXT_MILESTONE}", "reached:6:6:99999999999999999"),
    ("milestone-announced-too-soon", f"milestone:{NEXT_MILESTONE}", "announced:6:6:1764000000000"),
):
    _acts.put(_name, _with(_field, _value))

_acts.put("count-too-high-unsigned", _with("count", "42", signs=False))
_acts.put("count-a-word-unsigned", _with("count", "abc", signs=False))


def _with_minute(minute: str, value: str) -> Do:
    async def act(victim: Victim, _: Random, __: Traces) -> None:
        """A minute without signatures, or an invalid number."""
        name = minute or str(min((await victim.truth()).minutes))
        async with victim.parts.redis() as redis:
            await redis.hset(_minutes(victim), name, value)
        await _signs(victim)

    return act


for _name, _field, _value in (
    ("minute-too-high", "", "42"),
    ("minute-a-word", "", "abc"),
    ("minute-of-a-word", "abc", "1"),
    ("minute-far-ahead", "99999999", "1"),
):
    _acts.put(_name, _with_minute(_field, _value))

ACTS: Final[tuple[Act, ...]] = tuple(_acts.found)
