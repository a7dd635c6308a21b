"""The subscribers of docs/subscribing.md run unchanged, each with only what its first line installs."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiokafka.consumer import fetcher

from shared.contract.topics import (
    MILESTONES_REACHED,
    SIGNATURES_SUBMITTED,
    SIGNATURES_VERIFIED,
    TALLIES_UPDATED,
    all_topics,
)
from shared.kafka.fetching.unpacking import FetchedBytes
from tests.needs import EXAMPLES, SUBSCRIBERS, NeedMissing, install_subscribers
from tests.support.system import System

_SECONDS = 120.0


@pytest.fixture(scope="session")
def environments() -> Path:
    """Where each example has what it needs, and nothing else."""
    try:
        install_subscribers()
    except NeedMissing as error:
        pytest.fail(str(error))
    return SUBSCRIBERS


@asynccontextmanager
async def running(
    example: str, environments: Path, system: System, folder: Path
) -> AsyncIterator[asyncio.StreamReader]:
    """The output of an example, run as a program in its own environment."""
    language = example.rpartition(".")[2]
    environment, program = environments / language, folder / example
    shutil.copy(EXAMPLES / example, program)
    command: str | Path = environment / "bin" / "python"
    if language == "mjs":
        (folder / "node_modules").symlink_to(environment / "node_modules")
        command = "node"
    process = await asyncio.create_subprocess_exec(
        command,
        program,
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "KAFKA_BOOTSTRAP_SERVERS": system.stack.environment["KAFKA_BOOTSTRAP_SERVERS"],
        },
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(_SECONDS):
            yield process.stdout
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def until_it_prints(wanted: str, output: asyncio.StreamReader) -> None:
    async for line in output:
        if line.decode().rstrip() == wanted:
            return
    raise AssertionError("the subscriber has ended")


@pytest.mark.parametrize("example", ["subscriber.py", "subscriber.mjs"])
async def test_a_subscriber_follows_the_counts_from_before_it_came_and_from_after(
    example: str, environments: Path, system: System, tmp_path: Path
) -> None:
    petition = f"read-me-{example.rpartition('.')[2]}"
    await system.start_petition(petition)
    await system.surge(petition, range(3))
    async with running(example, environments, system, tmp_path) as output:
        await until_it_prints(f"{petition} 3 revision 3", output)
        await system.surge(petition, range(3, 5))
        await until_it_prints(f"{petition} 5 revision 5", output)


async def test_the_environments_hold_no_more_than_the_examples_say(environments: Path) -> None:
    """Else the tests above would say nothing of what a reader has who follows the first line."""
    process = await asyncio.create_subprocess_exec(
        environments / "py" / "bin" / "python",
        "-c",
        "from aiokafka import codec; print(codec.has_gzip(), codec.has_lz4(), codec.has_snappy(), codec.has_zstd())",
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert output.decode().split() == ["True", "False", "False", "False"]
    assert {folder.name for folder in (environments / "mjs" / "node_modules").glob("[!.]*")} == {"kafkajs"}


async def test_every_topic_for_others_holds_only_what_every_client_can_read(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    await system.start_petition("compressed", milestones=[10])
    await system.surge("compressed", range(200))
    await system.surge("compressed", range(100), name="Once More")
    await system.counts_to("compressed", 200)
    await system.decided("compressed", 300)
    found = {topic.name: await codecs_of(topic.name, system, monkeypatch) for topic in all_topics()}
    assert set().union(*(codecs for name, codecs in found.items() if name != SIGNATURES_SUBMITTED.name)) <= {0, 1}
    assert 3 in found[SIGNATURES_SUBMITTED.name]
    for topic in (SIGNATURES_VERIFIED, TALLIES_UPDATED, MILESTONES_REACHED):
        assert 1 in found[topic.name], f"nothing on {topic.name} is compressed"


async def codecs_of(topic: str, system: System, monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The compressions of a topic's batches by their numbers: 0 none, 1 gzip, 3 lz4."""
    codecs: set[int] = set()

    class Looked(FetchedBytes):
        def next_batch(self) -> Any:
            batch = super().next_batch()
            codecs.add(batch.compression_type)
            return batch

    with monkeypatch.context() as changed:
        changed.setattr(fetcher, "MemoryRecords", Looked)
        await system.records(topic)
    return codecs
