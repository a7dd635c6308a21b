"""The command `capacity`."""

from pathlib import Path
from typing import Annotated

import typer

from deploy.cli.options import OPERATION, AsJson

app = typer.Typer()


@app.command(rich_help_panel=OPERATION)
def capacity(
    *,
    rate: Annotated[float, typer.Option(help="Submissions a second, all for one petition.")],
    signatures: Annotated[int, typer.Option(help="Signatures that count, kept over all petitions.")],
    viewers: Annotated[int, typer.Option(help="Open live streams, all on that petition.")] = 0,
    costs: Annotated[Path | None, typer.Option(help="Measured costs; docs/bench/costs.json, if none is named.")] = None,
    duplicates: Annotated[float, typer.Option(help="Part of the submissions that does not count.")] = 0.08,
    utilisation: Annotated[float, typer.Option(help="Part of a core that may be busy at this rate.")] = 0.6,
    replication: Annotated[int, typer.Option(help="Copies of each Kafka partition.")] = 3,
    petitions: Annotated[int, typer.Option(help="Petitions that the signatures are spread over.")] = 1,
    days: Annotated[float, typer.Option(help="How long signatures of a petition keep coming.")] = 180.0,
    snapshot_interval_ms: Annotated[int, typer.Option(help="As TALLY_SNAPSHOT_INTERVAL_MS.")] = 250,
    postgres_cores: Annotated[int, typer.Option(help="Cores of the PostgreSQL server.")] = 8,
    as_json: AsJson = False,
) -> None:
    """Compute instances, partitions, bytes and what saturates first, from measured costs. See docs/capacity.md.

    What has not been measured is not computed: the answer names it.
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
