"""`groundswell up`: the stack in the foreground, until Ctrl-C."""

import asyncio
import os
import signal
from pathlib import Path

from rich.console import Console
from rich.table import Table

from deploy.local.kafka import BrokerKind
from deploy.local.process import PartFailed
from deploy.local.stack import Stack
from deploy.local.state import StackState


async def up(*, broker: BrokerKind, state_dir: Path, as_json: bool) -> int:
    """Start the stack, say where to look, and run until SIGINT or SIGTERM.

    Args:
        broker: which Kafka broker.
        state_dir: where data, logs and `stack.json` go.
        as_json: print `stack.json` as one line on standard output instead of a table.

    Returns:
        The exit code: 0 when it was asked to stop, 1 when a part failed.
    """
    # Wider than any address, whatever the terminal: addresses are there to be copied, not to be cut or broken in two.
    out, err = Console(width=200), Console(stderr=True, highlight=False)
    stop_on_signals()
    try:
        async with Stack(broker=broker, state_dir=state_dir, report=err.print) as stack:
            if as_json:
                print(stack.state.model_dump_json(), flush=True)  # not through rich: it would wrap the line
            else:
                out.print(where_to_look(stack.state, state_dir))
                out.print("Stop with Ctrl-C.")
            await stack.watch()
    except PartFailed as failure:
        err.print(str(failure), markup=False, style="red", soft_wrap=True)
        return 1
    except asyncio.CancelledError:
        err.print("stopped")
        return 0


def stop_on_signals() -> None:
    """Make the first SIGINT or SIGTERM cancel the current task, so that it stops its stack in order.

    A second one ends this process at once; what is left of the stack is then ended by its guard.
    """
    task = asyncio.current_task()
    assert task is not None
    asked = False

    def stop() -> None:
        nonlocal asked
        if asked:
            os._exit(130)
        asked = True
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)


def where_to_look(state: StackState, state_dir: Path) -> Table:
    """Return a table of the addresses of a stack."""
    table = Table(
        title="Groundswell is up", title_justify="left", title_style="bold green", show_header=False, box=None
    )
    table.add_column(style="bold", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_row("Pages", f"{state.tally_url}/o/<organisation>")
    table.add_row("", f"{state.tally_url}/p/<petition>")
    table.add_row("Sign", f"POST {state.ingest_url}/v1/petitions/<petition>/signatures")
    table.add_row("Add a petition", f"PUT {state.ingest_url}/v1/petitions/<petition>")
    table.add_row("", f"Authorization: Bearer {state.admin_token}")
    table.add_row("Mailbox" if state.mailbox_url else "SMTP", state.mailbox_url or state.smtp_url)
    table.add_row(f"Kafka ({state.broker})", state.kafka_bootstrap_servers)
    table.add_row("Redis", state.redis_url)
    table.add_row("Postgres", state.postgres_url)
    for name, url in (
        ("ingest", state.ingest_url),
        ("verify", state.verify_url),
        ("tally", state.tally_url),
        ("notify", state.notify_url),
    ):
        table.add_row(name, f"{url}/readyz  (also /livez, /metrics, /docs/asyncapi)")
    table.add_row("Logs", f"{state_dir / 'logs'}/")
    table.add_row("All of this", str(state_dir / "stack.json"))
    return table
