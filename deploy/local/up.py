"""`groundswell up`: the stack in the foreground, until Ctrl-C; and `groundswell reset`."""

import asyncio
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import typer
from rich.console import Console
from rich.table import Table

from deploy.local import first_steps, place
from deploy.local.assembly import given
from deploy.local.leftovers import end_leftovers
from deploy.local.parts.kafka import BrokerKind
from deploy.local.parts.process import PartFailed
from deploy.local.place import Place
from deploy.local.stack import Stack
from deploy.local.state import StackState
from deploy.local.supervise import Supervisor

_DATA_PARTS: Final = {"KAFKA_BOOTSTRAP_SERVERS": "kafka", "REDIS_URL": "redis", "POSTGRES_URL": "postgres"}
"""Parts whose data belongs together, by the variable that names an external one."""

_COALESCE: Final = "NOTIFY_COALESCE_SECONDS"
_COALESCE_SECONDS: Final = "5"
"""How long milestones collect for one mail. Minutes in production; here a person watches the mailbox."""


async def up(*, broker: BrokerKind, state_dir: Path, as_json: bool, usual_ports: bool = True) -> int:
    """Start the stack, print its addresses, and run until SIGINT or SIGTERM; restart what dies meanwhile.

    Args:
        broker: which Kafka broker.
        state_dir: the directory of data, logs and `stack.json`.
        as_json: print `stack.json` as one line on standard output instead of a table.
        usual_ports: whether to use the usual ports if they are free, or any ports.

    Returns:
        The exit code: 0 after a requested stop, 1 if it could not be started.
    """
    # Wider than any address, whatever the terminal, so that addresses can be copied without line breaks.
    out, err = Console(width=200), Console(stderr=True)

    def report(line: str) -> None:
        err.print(line, markup=False, highlight=False, soft_wrap=True)

    os.umask(0o077)  # files hold personal data and secrets; children inherit the mask
    stop_on_signals()
    try:
        with Place(state_dir, report=report, usual_ports=usual_ports) as here:
            own = [part for variable, part in _DATA_PARTS.items() if given(os.environ, variable) is None]
            await here.prepare(broker=broker if "kafka" in own else "external", parts=own)
            async with Stack(
                broker=broker,
                state_dir=state_dir,
                place=here,
                report=report,
                service_environment=_settings(os.environ),
            ) as stack:
                first_steps.write_env(stack.state, state_dir)
                if as_json:
                    print(stack.state.model_dump_json(), flush=True)  # not through rich: it would wrap the line
                else:
                    out.print(where_to_look(stack.state, state_dir))
                    _print_first_steps(stack.state, state_dir)
                await Supervisor(stack, report).run()
    except PartFailed as failure:
        err.print(str(failure), markup=False, style="red", soft_wrap=True)
        return 1
    except asyncio.CancelledError:
        err.print("stopped")
        return 0


def _settings(environ: Mapping[str, str]) -> dict[str, str]:
    return {} if given(environ, _COALESCE) else {_COALESCE: _COALESCE_SECONDS}


def _print_first_steps(state: StackState, state_dir: Path) -> None:
    """Print the first steps. Not through rich, which would wrap lines that are to be copied."""
    for what, command in first_steps.commands(state):
        print(f"\n{what}:\n  {command}")
    print(
        f"\nStop with Ctrl-C. Petitions, signatures, ports and tokens stay in {state_dir}/ for the next time;"
        " `groundswell reset` removes them.",
        flush=True,
    )


def reset(state_dir: Path, *, yes: bool) -> int:
    """Remove what `groundswell up` keeps, after asking. Returns the exit code: 1 if it is running or the answer is no."""
    if not state_dir.is_dir() or place.is_empty(state_dir):
        typer.echo(f"There is nothing in {state_dir} to remove.")
        return 0
    try:
        lock = place.claim(state_dir)
    except PartFailed as runs:
        typer.echo(f"Nothing was removed: {runs}", err=True)
        return 1
    with lock:
        if not yes and not typer.confirm(
            f"Remove all petitions, signatures, mails, ports and tokens that `groundswell up` keeps in"
            f" {state_dir.resolve()}?",
            err=True,
        ):
            typer.echo("Nothing was removed.", err=True)
            return 1
        asyncio.run(end_leftovers(state_dir))
        place.remove(state_dir)
    typer.echo(f"{state_dir} is as new.")
    return 0


def stop_on_signals() -> None:
    """Make the first SIGINT or SIGTERM cancel the current task, so that it stops its stack in order.

    A second one ends this process at once; the guard then ends the rest of the stack.
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
    table.add_row("Admin token", state.admin_token)
    table.add_row("API key", state.api_key)
    table.add_row("Mailbox" if state.mailbox_url else "SMTP", state.mailbox_url or state.smtp_url)
    table.add_row(f"Kafka ({state.broker})", state.kafka_bootstrap_servers)
    table.add_row("Redis", state.redis_url)
    table.add_row("Postgres", state.postgres_url)
    for name, url in state.services.items():
        table.add_row(name, f"{url}/readyz  (also /livez, /metrics, /docs/asyncapi)")
    table.add_row("Logs", f"{state_dir / 'logs'}/")
    table.add_row("All of this", str(state_dir / "stack.json"))
    return table
