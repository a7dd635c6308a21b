"""`groundswell demo`: start the stack, send the surge, wait for quiet, check everything."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final

import asyncpg
import httpx
import psutil
from aiokafka.errors import KafkaError
from rich.console import Console

from deploy.demo.checks import run_checks
from deploy.demo.plan.petitions import DemoPetition
from deploy.demo.plan.surge import Surge
from deploy.demo.report import Report, print_checks, print_facts, where_to_look
from deploy.demo.sending.sender import Sender, SendFailed
from deploy.demo.watching.live import live_view
from deploy.demo.watching.quiet import wait_for_quiet
from deploy.demo.watching.watch import watching
from deploy.local.parts.kafka import BrokerKind, security_of
from deploy.local.parts.process import PartFailed
from deploy.local.stack import Stack
from deploy.local.up import stop_on_signals

_COALESCE_SECONDS: Final = "3"
"""How long milestones collect for one mail: minutes in production, but here a person waits. The first milestones of the
largest petition are less than a hundredth of the surge apart, so some are always folded into one mail."""

_KNOWN_SECONDS: Final = 30.0
_DEATH_SECONDS: Final = 1.0


class DemoFailed(RuntimeError):
    """The demo could not be carried out; the message says why."""


async def demo(*, broker: BrokerKind, state_dir: Path, as_json: bool, keep: bool, scale: float) -> int:
    """Run the demo.

    Args:
        broker: which Kafka broker.
        state_dir: the directory of data, logs and `stack.json`.
        as_json: print one JSON object as the last line of standard output; everything else then goes to standard error.
        keep: leave the stack running after the checks, until Ctrl-C.
        scale: factor for all numbers; 1 is the full demo.

    Returns:
        The exit code: 0 if every figure is right, 1 if one is not or the demo could not be carried out, 130 if it was
        interrupted.
    """
    console = Console(stderr=as_json)
    report = Report(broker=broker)
    surge = Surge(scale=scale)
    stop_on_signals()
    started, printed = time.monotonic(), False
    stack = Stack(
        broker=broker,
        state_dir=state_dir,
        service_environment={"NOTIFY_COALESCE_SECONDS": _COALESCE_SECONDS},
        report=lambda line: console.print(line, style="dim", highlight=False),
    )
    try:
        async with stack:
            report.broker = stack.state.broker
            await _while_up(stack, _send_and_check(stack, surge, report, console))
            report.seconds = time.monotonic() - started
            report.cpu_seconds = _cpu_seconds(stack)
            print_checks(console, report)
            print_facts(console, report)
            if report.ok:
                console.print(f"All {surge.petitions.supporters:,} supporters counted, each once.", style="bold green")
            if keep:
                console.print(where_to_look(stack.state, surge.petitions))
                if as_json:  # a program need not wait for the end of a stack that is kept
                    printed = _print_json(report, surge)
                await _keep(stack, console)
            else:
                console.print(
                    f"With --keep the pages, the mailbox and /metrics stay up. Logs: {state_dir / 'logs'}/",
                    highlight=False,
                    soft_wrap=True,
                )
    except (PartFailed, DemoFailed, SendFailed, KafkaError, httpx.HTTPError, asyncpg.PostgresError, OSError) as failure:
        console.print(
            f"The demo failed: {failure or repr(failure)}", style="red", markup=False, highlight=False, soft_wrap=True
        )
        report.missing = [*report.missing, str(failure)]
    except asyncio.CancelledError:
        console.print("interrupted")
        return 130
    finally:
        report.seconds = report.seconds or time.monotonic() - started
        if as_json and not printed:
            _print_json(report, surge)
    return 0 if report.ok else 1


async def _send_and_check(stack: Stack, surge: Surge, report: Report, console: Console) -> None:
    state = stack.state
    if state.mailbox_url is None:
        raise DemoFailed("it reads the mails that it causes: unset SMTP_URL to use the stack's own mailbox")
    async with watching(state, surge.petitions) as watch:
        if await watch.outcomes():
            raise DemoFailed("there are signatures in POSTGRES_URL already: its counts need an empty system")
        async with httpx.AsyncClient(base_url=state.ingest_url, timeout=30, trust_env=False) as ingest:
            for petition in surge.petitions.all:
                await _put(ingest, petition, state.admin_token)
            await _until_known(ingest, surge)
        console.print(
            f"{len(surge.petitions.open)} petitions are open; {surge.expectation.sent:,} signatures and poison records"
            f" are on their way. Watch them at {state.tally_url}/o/{surge.petitions.organisation_slug}",
            highlight=False,
            soft_wrap=True,
        )
        sender = Sender(
            surge,
            ingest_url=state.ingest_url,
            api_key=state.api_key,
            bootstrap_servers=state.kafka_bootstrap_servers,
            security=security_of(state.environment),
        )
        report.progress = sender.progress
        async with live_view(console, watch, surge.petitions, sender.progress):
            await sender.send()
            report.missing = await wait_for_quiet(watch, surge.petitions, sender.progress)
        report.observed = await watch.observe()
        report.checks = run_checks(surge, sender.progress, report.observed)


async def _put(ingest: httpx.AsyncClient, petition: DemoPetition, admin_token: str) -> None:
    answer = await ingest.put(
        f"/v1/petitions/{petition.petition_id}",
        content=petition.state.model_dump_json(),
        headers={"Authorization": f"Bearer {admin_token}", "Content-Type": "application/json"},
    )
    if answer.status_code not in (200, 201):
        raise DemoFailed(f"PUT of {petition.petition_id} was answered {answer.status_code}: {answer.text}")


async def _until_known(ingest: httpx.AsyncClient, surge: Surge) -> None:
    """Wait until ingest answers requests for every petition."""
    deadline = time.monotonic() + _KNOWN_SECONDS
    for petition in surge.petitions.all:
        while (answer := await ingest.get(f"/v1/petitions/{petition.petition_id}")).status_code != httpx.codes.OK:
            if time.monotonic() > deadline:
                raise DemoFailed(f"ingest does not know {petition.petition_id}: {answer.status_code} {answer.text}")
            await asyncio.sleep(0.05)


async def _while_up(stack: Stack, work: Coroutine[Any, Any, None]) -> None:
    """Do `work`, but fail at once, with the tail of its log, when a part of the stack dies meanwhile."""
    working, watching_parts = asyncio.create_task(work), asyncio.create_task(stack.watch())
    try:
        await asyncio.wait({working, watching_parts}, return_when=asyncio.FIRST_COMPLETED)
        if working.done() and working.exception() is not None:
            # Often because a part has died, which is seen a moment later and is the better answer.
            await asyncio.wait({watching_parts}, timeout=_DEATH_SECONDS)
        if watching_parts.done():
            watching_parts.result()
        await working
    finally:
        for task in (working, watching_parts):
            task.cancel()
        await asyncio.gather(working, watching_parts, return_exceptions=True)


async def _keep(stack: Stack, console: Console) -> None:
    console.print("The stack stays up. Stop it with Ctrl-C.")
    try:
        await stack.watch()
    except asyncio.CancelledError:
        console.print("stopped")


def _print_json(report: Report, surge: Surge) -> bool:
    sys.stdout.write(report.as_json(surge) + "\n")  # not through rich: it would wrap the line
    sys.stdout.flush()
    return True


def _cpu_seconds(stack: Stack) -> dict[str, float]:
    own = psutil.Process(os.getpid()).cpu_times()
    return {**{process.name: process.cpu_seconds() for process in stack.processes}, "demo": own.user + own.system}
