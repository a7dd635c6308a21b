"""Commands to run before the services start: `check`, `migrate` and `topics apply`."""

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
    services: Annotated[list[Service] | None, typer.Argument(help="The services to check; default: all.")] = None,
    as_json: AsJson = False,
) -> None:
    """Validate the current settings of services. Exit code 2 if one is invalid."""
    from deploy import operate

    names = [service.value for service in services or Service]
    raise typer.Exit(operate.check(names, as_json=as_json))


@app.command(rich_help_panel=OPERATION)
def migrate(as_json: AsJson = False) -> None:
    """Apply pending migrations to the database at POSTGRES_URL. Idempotent; safe to run concurrently."""
    from deploy import operate

    raise typer.Exit(asyncio.run(operate.migrate(as_json=as_json)))


topics = typer.Typer(no_args_is_help=True, help="The Kafka topics.")
app.add_typer(topics, name="topics", rich_help_panel=OPERATION)


@topics.command("apply")
def topics_apply(
    partitions: Annotated[int, typer.Option(help="Number of partitions of new topics.")] = 6,
    replication_factor: Annotated[int, typer.Option(help="Replicas of each partition; 3 in production.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Create missing topics on KAFKA_BOOTSTRAP_SERVERS, and set retention and compaction. Idempotent."""
    from deploy import operate

    work = operate.apply(partitions=partitions, replication_factor=replication_factor, as_json=as_json)
    raise typer.Exit(asyncio.run(work))
