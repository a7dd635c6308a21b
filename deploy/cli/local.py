"""Commands for the local stack: `up`, `kill`, `reset` and `demo`. They need the extra `local`."""

import asyncio
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from deploy.cli.needs import need_local_stack
from deploy.cli.options import LOCAL, AsJson
from deploy.local import DEMO_STATE_DIR, STATE_DIR

app = typer.Typer()


class Broker(StrEnum):
    """Which Kafka broker the local stack starts."""

    EMBEDDED = "embedded"
    APACHE = "apache"


StateDir = Annotated[Path, typer.Option(help="Directory of data, logs and stack.json, for one stack at a time.")]


@app.command(rich_help_panel=LOCAL)
def up(
    broker: Annotated[Broker, typer.Option(help="Embedded, or real Apache Kafka (needs Java and mvn).")] = (
        Broker.EMBEDDED
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print the addresses as one line of JSON.")] = False,
    usual_ports: Annotated[
        bool, typer.Option("--usual-ports/--any-ports", help="Ports 8001 and so on if they are free, or any ports.")
    ] = True,
    state_dir: StateDir = STATE_DIR,
) -> None:
    """Run the whole system on this machine until Ctrl-C, and restart parts that die.

    Data, ports and tokens are kept for the next start, until `groundswell reset`. A part whose address is in the environment
    (KAFKA_BOOTSTRAP_SERVERS, REDIS_URL, POSTGRES_URL, SMTP_URL) is used there and not started.
    """
    need_local_stack()
    from deploy.local.up import up as run

    work = run(broker=broker.value, state_dir=state_dir, as_json=as_json, usual_ports=usual_ports)
    raise typer.Exit(asyncio.run(work))


@app.command(rich_help_panel=LOCAL)
def kill(
    name: Annotated[str, typer.Argument(help="ingest, verify, tally, notify, kafka, redis, postgres or mail.")],
    freeze: Annotated[
        float | None, typer.Option(min=0.1, max=3600, help="Freeze it for this many seconds instead.")
    ] = None,
    as_json: AsJson = False,
    state_dir: StateDir = STATE_DIR,
) -> None:
    """Kill one part or service of the running `groundswell up` (SIGKILL), and wait until the system has recovered.

    Prints what to watch meanwhile. Exit code 1 if nothing was killed, or if the system has not recovered in five minutes.
    """
    need_local_stack()
    from deploy.local.kill import kill as run

    raise typer.Exit(run(name, freeze=freeze, state_dir=state_dir, as_json=as_json))


@app.command(rich_help_panel=LOCAL)
def reset(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    state_dir: StateDir = STATE_DIR,
) -> None:
    """Remove what `groundswell up` keeps: petitions, signatures, mails, ports, tokens. Refused while it runs."""
    need_local_stack()
    from deploy.local.up import reset as run

    raise typer.Exit(run(state_dir, yes=yes))


@app.command(rich_help_panel=LOCAL)
def demo(
    broker: Annotated[Broker, typer.Option(help="Embedded, or real Apache Kafka (needs Java and mvn).")] = (
        Broker.EMBEDDED
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the stack running afterwards, until Ctrl-C.")] = False,
    scale: Annotated[float, typer.Option(help="Factor for all numbers, 0 < scale <= 1.")] = 1.0,
    state_dir: StateDir = DEMO_STATE_DIR,
) -> None:
    """Send 123,672 signatures and poison records through the whole system, and check every resulting count.

    Exit code 1 if anything is not exactly as expected.
    """
    if not 0 < scale <= 1:
        raise typer.BadParameter("--scale must be above 0 and at most 1")
    need_local_stack()
    from deploy.demo.run import demo as run

    raise typer.Exit(
        asyncio.run(run(broker=broker.value, state_dir=state_dir, as_json=as_json, keep=keep, scale=scale))
    )
