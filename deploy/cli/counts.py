"""Commands that prove and restore the counts: `audit` and `rebuild`."""

import asyncio
from typing import Annotated

import typer

from deploy.cli.options import OPERATION, AsJson

app = typer.Typer()

Petitions = Annotated[list[str] | None, typer.Argument(help="Petition ids; default: all.")]


@app.command(rich_help_panel=OPERATION)
def audit(petitions: Petitions = None, as_json: AsJson = False) -> None:
    """Compare the counts in Redis with the ledger, exactly, also under traffic. Exit code 1 if anything differs."""
    from deploy import operate

    raise typer.Exit(asyncio.run(operate.audit(list(petitions or []), as_json=as_json)))


@app.command(rich_help_panel=OPERATION)
def rebuild(
    petitions: Petitions = None,
    force: Annotated[
        bool, typer.Option(help="Also if Redis has counted more than the ledger holds: after a loss of PostgreSQL.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Recount petitions from the ledger and replace their counts in Redis, also under traffic."""
    from deploy import operate

    raise typer.Exit(asyncio.run(operate.rebuild(list(petitions or []), force=force, as_json=as_json)))
