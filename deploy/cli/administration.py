"""Commands of an administrator: `erase`, and `admin-events`, which lists what administrators changed."""

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
        typer.Option(help="Who decided it: a name or an account of your staff; if left out, the token's name."),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why, such as the number of the request. Do not name the signer.")],
    as_json: AsJson = False,
) -> None:
    """Erase who gave a signature. The count stays; `docs/adr/0011` says what else stays and why.

    Asks ingest at INGEST_URL or PUBLIC_INGEST_URL with ADMIN_TOKEN, or the first of ADMIN_TOKENS, else the running local
    stack, and waits until it is done. Exit code 1 when it is refused or not done in time; given again, it is the same command.
    """
    from deploy.erase import erase as run

    raise typer.Exit(run(signature, actor=actor, reason=reason, as_json=as_json))


@app.command(rich_help_panel=OPERATION)
def admin_events(
    petition: Annotated[str | None, typer.Option(help="Only those about this petition.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many, the newest.", min=1, max=100_000)] = 100,
    as_json: AsJson = False,
) -> None:
    """List who changed what: calls of administrators, and of partners about signatures, by the name of their token.

    Reads POSTGRES_URL, else that of the running local stack. `asked` is one whose end is not known: its process died.
    """
    from deploy.admin_events import list_events

    raise typer.Exit(asyncio.run(list_events(petition, limit=limit, as_json=as_json)))
