"""Commands about the mails to targets: `deliveries list` and `deliveries retry`."""

import asyncio
from enum import StrEnum
from typing import Annotated
from uuid import UUID

import typer

from deploy.cli.options import OPERATION, AsJson

app = typer.Typer()
deliveries = typer.Typer(no_args_is_help=True, help="The mails to targets: list them, and retry failed ones.")
app.add_typer(deliveries, name="deliveries", rich_help_panel=OPERATION)


class DeliveryState(StrEnum):
    """The state of a delivery."""

    PENDING = "pending"
    SENDING = "sending"
    SENT = "sent"
    FOLDED = "folded"
    FAILED = "failed"


@deliveries.command("list")
def deliveries_list(
    petition: Annotated[str | None, typer.Option(help="Only deliveries of this petition.")] = None,
    state: Annotated[
        DeliveryState | None, typer.Option(help="Only deliveries in this state. Folded: another mail names them too.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Maximum number, the last changed first.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List deliveries with the mail server's last reply. Reads the database at POSTGRES_URL."""
    from deploy import deliveries as run
    from services.notify.outbox.listing import State

    work = run.show(
        petition_id=petition, state=None if state is None else State(state.value), limit=limit, as_json=as_json
    )
    raise typer.Exit(asyncio.run(work))


@deliveries.command("retry")
def deliveries_retry(
    petition: Annotated[str | None, typer.Option(help="All failed deliveries of this petition.")] = None,
    delivery: Annotated[UUID | None, typer.Option(help="One failed delivery.")] = None,
    all_failed: Annotated[bool, typer.Option("--all-failed", help="All failed deliveries.")] = False,
    actor: Annotated[str | None, typer.Option(help="Who decided it; stored, and logged by notify.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make failed deliveries due again, at their targets' current addresses. Sent mails are not sent again.

    Not needed after an address was corrected: what failed for the old address is then sent to the new one by itself.
    """
    from deploy import deliveries as run

    work = run.retry(petition_id=petition, delivery=delivery, all_failed=all_failed, actor=actor, as_json=as_json)
    raise typer.Exit(asyncio.run(work))
