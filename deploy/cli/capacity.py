"""The command `capacity`."""

from pathlib import Path
from typing import Annotated

import typer

from deploy.cli.options import OPERATION, AsJson

app = typer.Typer()


@app.command(rich_help_panel=OPERATION)
def capacity(
    *,
    rate: Annotated[float, typer.Option(help="Submissions per second, all for one petition.")],
    signatures: Annotated[int, typer.Option(help="Signatures that count, stored over all petitions.")],
    viewers: Annotated[int, typer.Option(help="Open live streams, all on that petition.")] = 0,
    costs: Annotated[Path | None, typer.Option(help="File of measured costs; default: docs/bench/costs.json.")] = None,
    duplicates: Annotated[float, typer.Option(help="Fraction of the submissions that does not count.")] = 0.08,
    utilisation: Annotated[float, typer.Option(help="Fraction of a core that may be busy at this rate.")] = 0.6,
    replication: Annotated[int, typer.Option(help="Replicas of each Kafka partition.")] = 3,
    petitions: Annotated[int, typer.Option(help="Number of petitions that share the signatures.")] = 1,
    days: Annotated[float, typer.Option(help="Days for which a petition receives signatures.")] = 180.0,
    snapshot_interval_ms: Annotated[int, typer.Option(help="The value of TALLY_SNAPSHOT_INTERVAL_MS.")] = 250,
    postgres_cores: Annotated[int, typer.Option(help="Cores of the PostgreSQL server.")] = 8,
    as_json: AsJson = False,
) -> None:
    """Compute instances, partitions, bytes and the first bottleneck from measured costs. See docs/capacity.md.

    The answer names what is not computed because it has not been measured.
    """
    from deploy.capacity.run import run

    run(
        costs=costs,
        as_json=as_json,
        rate=rate,
        signatures=signatures,
        viewers=viewers,
        duplicates=duplicates,
        utilisation=utilisation,
        replication=replication,
        petitions=petitions,
        days=days,
        snapshot_interval_ms=snapshot_interval_ms,
        postgres_cores=postgres_cores,
    )
