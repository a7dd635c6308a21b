"""Where a process spends its CPU by stage, sampled from outside by py-spy.

A sample is a stack of Python functions. It belongs to the stage of the innermost function that a rule names: pydantic inside
`decode` is decoding, the event loop by itself is the event loop's.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.local.parts.children import run_to_end
from deploy.local.parts.process import PartFailed

_SAMPLES_A_SECOND: Final = 200
_PY_SPY: Final = Path(sys.executable).with_name("py-spy")

OTHER: Final = "event loop and the rest"


@dataclass(frozen=True, slots=True)
class Rule:
    """Functions of one stage: a pattern of ``function (file:line)``."""

    stage: str
    pattern: re.Pattern[str]


def rules(*of: tuple[str, str]) -> tuple[Rule, ...]:
    """Stage and pattern, in the order in which a function is matched."""
    return tuple(Rule(stage, re.compile(pattern)) for stage, pattern in of)


_IDENTITY: Final = (
    "canonical e-mail, signer key",
    r"shared/contract/identity|shared/contract/mail|email_validator/|idna/",
)
_KAFKA_IN: Final = (
    "Kafka: fetch, commit",
    r"aiokafka/(consumer|record|coordinator)|faststream/|shared/kafka/consuming/watch",
)
_KAFKA_OUT: Final = (
    "Kafka: publish",
    r"aiokafka/producer|shared/kafka/producing/producer|aiokafka/record/(default|legacy)_rec",
)

STAGES: Final[Mapping[str, tuple[Rule, ...]]] = {
    "ingest": rules(
        _IDENTITY,
        ("Kafka: publish", r"aiokafka/|shared/kafka/|services/ingest/signing/intake|shared/contract/events|cramjam"),
        ("admit the client", r"services/ingest/web/clients|services/ingest/web/limits|services/ingest/access/|limits/"),
        (
            "HTTP: parse, answer",
            r"uvicorn/|httptools|h11/|services/ingest/signing/sign\.py|services/ingest/app|services/ingest/web/answers"
            r"|starlette/|shared/web/connections",
        ),
        ("read the body", r"services/ingest/|shared/web/sign_form|pydantic"),
    ),
    "verify": rules(
        _IDENTITY,
        _KAFKA_OUT,
        ("make facts", r"(fact|rejection)_record |shared/kafka/records/headers"),
        ("decode", r"_decode_all |decode |read_event |shared/kafka/records/decode"),
        ("decide", r"services/verify/deciding/|_judge"),
        ("PostgreSQL", r"services/verify/store|asyncpg/|shared/postgres"),
        _KAFKA_IN,
    ),
    "tally": rules(
        _KAFKA_OUT,
        ("decode", r"_decode_all |decode |read_event |shared/kafka/records/decode"),
        ("Redis", r"services/tally/counting/redis_store|redis/|hiredis"),
        (
            "snapshots",
            r"services/tally/counting/announcing|services/tally/counting/heal|services/tally/counting/audit"
            r"|services/tally/counting/ledger|services/tally/reading/|asyncpg/",
        ),
        ("group, fences", r"services/tally/counting/"),
        _KAFKA_IN,
    ),
}
"""The stages of each service, innermost function first; of one function, the first rule that fits: a room stands after
those of its modules that have a stage of their own."""


def stage_of(stack: str, of: Sequence[Rule]) -> str:
    """The stage of one stack: frames from the outermost to the innermost, separated by semicolons."""
    for frame in reversed(stack.split(";")):
        for rule in of:
            if rule.pattern.search(frame):
                return rule.stage
    return OTHER


def shares(raw: str, of: Sequence[Rule]) -> dict[str, float]:
    """The part of the samples in each stage, adding up to 1.

    Args:
        raw: lines of ``stack count``, as ``py-spy record --format raw`` writes them.

    Raises:
        ValueError: there are no samples.
    """
    counts: dict[str, int] = {rule.stage: 0 for rule in of} | {OTHER: 0}
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        counts[stage_of(stack, of)] += int(count)
    total = sum(counts.values())
    if not total:
        raise ValueError("py-spy saw the process do nothing")
    return {stage: count / total for stage, count in counts.items()}


async def sampled(service: str, pid: int, seconds: float, directory: Path) -> dict[str, float]:
    """Sample a service for some seconds; return the part of its CPU in each stage.

    Raises:
        PartFailed: py-spy could not read the process; its output says why (it needs the right to trace it).
    """
    output = directory / f"{service}.stacks"
    command: list[str | Path] = [_PY_SPY, "record", "--pid", str(pid), "--duration", str(max(1, round(seconds)))]
    # Without stopping the process: it can be stopped mostly in system calls, which would seem to take all the time.
    command += ["--nonblocking", "--rate", str(_SAMPLES_A_SECOND), "--format", "raw", "--output", output]
    code, said = await run_to_end(command)
    if code != 0 or not output.exists():
        raise PartFailed(f"py-spy ended with exit code {code}:\n{said}")
    return shares(output.read_text(encoding="utf-8"), STAGES[service])
