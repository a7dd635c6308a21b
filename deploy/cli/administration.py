"""Commands for administrators: `erase`, and `admin-events`, which lists administrators' changes."""

import asyncio
from typing import Annotated
from uuid import UUID

import typer

from deploy.cli.options import OPERATION, AsJson

app = typer.Typer()


@app.command(rich_help_panel=OPERATION)
def erase(
    signature: Annotated[UUID, typer.Argument(help="The signature's id.")],
    *,
    actor: Annotated[
        str | None,
        typer.Option(help="Who decided it: a name or an account of your staff; by default the token's name."),
    ] = None,
    reason: Annotated[str, typer.Option(help="The reason, such as the number of the request. Do not name the signer.")],
    as_json: AsJson = False,
) -> None:
    """Erase what links a signature to its signer. The count stays; `docs/adr/0011` says what else stays and why.

    Sends the command to ingest at INGEST_URL or PUBLIC_INGEST_URL with ADMIN_TOKEN or the first of ADMIN_TOKENS, by default
    to the running local stack, and waits until it is done. Exit code 1 if it is refused or not done in time. Idempotent.
    """
    from deploy.erase import erase as run

    raise typer.Exit(run(signature, actor=actor, reason=reason, as_json=as_json))


@app.command(rich_help_panel=OPERATION)
def admin_events(
    petition: Annotated[str | None, typer.Option(help="Only events about this petition.")] = None,
    limit: Annotated[int, typer.Option(help="Maximum number of events, the newest.", min=1, max=100_000)] = 100,
    as_json: AsJson = False,
) -> None:
    """List who changed what: calls of administrators, and of partners about signatures, by the name of their token.

    Reads the database at POSTGRES_URL, by default that of the running local stack. The outcome `asked` means that it is
    unknown: the process died.
    """
    from deploy.admin_events import list_events

    raise typer.Exit(asyncio.run(list_events(petition, limit=limit, as_json=as_json)))
