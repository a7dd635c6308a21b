"""Commands before the services start: `check`, `migrate` and `topics apply`."""

import asyncio
from enum import StrEnum
from typing import Annotated

import typer

from deploy.cli.options import OPERATION, AsJson

app = typer.Typer()


class Service(StrEnum):
    """The four services."""

    INGEST = "ingest"
    VERIFY = "verify"
    TALLY = "tally"
    NOTIFY = "notify"


@app.command(rich_help_panel=OPERATION)
def check(
    services: Annotated[list[Service] | None, typer.Argument(help="Which services; all, if none is named.")] = None,
    as_json: AsJson = False,
) -> None:
    """Validate the settings that services would start with now. Exit code 2 when one is wrong."""
    from deploy import operate

    names = [service.value for service in services or Service]
    raise typer.Exit(operate.check(names, as_json=as_json))


@app.command(rich_help_panel=OPERATION)
def migrate(as_json: AsJson = False) -> None:
    """Bring the tables of POSTGRES_URL up to date. Safe to run again, and by several at once."""
    from deploy import operate

    raise typer.Exit(asyncio.run(operate.migrate(as_json=as_json)))


topics = typer.Typer(no_args_is_help=True, help="The Kafka topics.")
app.add_typer(topics, name="topics", rich_help_panel=OPERATION)


@topics.command("apply")
def topics_apply(
    partitions: Annotated[int, typer.Option(help="Partitions of topics that are created.")] = 6,
    replication_factor: Annotated[int, typer.Option(help="Copies of each partition; 3 in production.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Create the topics that are missing on KAFKA_BOOTSTRAP_SERVERS, and set retention and compaction. Repeatable."""
    from deploy import operate

    work = operate.apply(partitions=partitions, replication_factor=replication_factor, as_json=as_json)
    raise typer.Exit(asyncio.run(work))
