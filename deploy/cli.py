"""The `groundswell` command. Each subcommand lives where its work is done and is imported when it is called, so that
`groundswell --help` is there at once and a production image needs none of the local stack."""

import asyncio
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from deploy.local import STATE_DIR

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


class Broker(StrEnum):
    """Which Kafka broker the local stack starts."""

    EMBEDDED = "embedded"
    APACHE = "apache"


StateDir = Annotated[Path, typer.Option(help="Where data, logs and stack.json go. One stack at a time in each.")]


@app.callback()
def groundswell() -> None:
    """Groundswell: petition signatures in, a live count that can be proved out."""


# Local stack ----------------------------------------------------------------------------------------------------------


@app.command()
def up(
    broker: Annotated[Broker, typer.Option(help="Embedded, or real Apache Kafka (needs Java and mvn).")] = (
        Broker.EMBEDDED
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print the addresses as one line of JSON.")] = False,
    state_dir: StateDir = STATE_DIR,
) -> None:
    """Start the whole system on this machine and run it until Ctrl-C.

    A part whose address is in the environment (KAFKA_BOOTSTRAP_SERVERS, REDIS_URL, POSTGRES_URL, SMTP_URL) is used
    there and not started.
    """
    from deploy.local.up import up as run

    raise typer.Exit(asyncio.run(run(broker=broker.value, state_dir=state_dir, as_json=as_json)))


# Demo -----------------------------------------------------------------------------------------------------------------

# Settings, tables and topics ------------------------------------------------------------------------------------------

# Counts: audit and rebuild --------------------------------------------------------------------------------------------

# Generated files ------------------------------------------------------------------------------------------------------


def main() -> None:
    """Run the command."""
    app()


if __name__ == "__main__":
    main()
