"""The `groundswell` command. Each subcommand lives where its work is done and is imported when it is called, so that
`groundswell --help` is there at once and a production image needs none of the local stack."""

import asyncio
import os
import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from deploy.local import DEMO_STATE_DIR, STATE_DIR

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


class Broker(StrEnum):
    """Which Kafka broker the local stack starts."""

    EMBEDDED = "embedded"
    APACHE = "apache"


StateDir = Annotated[Path, typer.Option(help="Where data, logs and stack.json go. One stack at a time in each.")]


class Service(StrEnum):
    """The four services."""

    INGEST = "ingest"
    VERIFY = "verify"
    TALLY = "tally"
    NOTIFY = "notify"


AsJson = Annotated[bool, typer.Option("--json", help="Print one line of JSON.")]
Petitions = Annotated[list[str] | None, typer.Argument(help="Petition ids; all, if none is named.")]


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
    usual_ports: Annotated[
        bool, typer.Option("--usual-ports/--any-ports", help="8001 and so on where they are free, or any.")
    ] = True,
    state_dir: StateDir = STATE_DIR,
) -> None:
    """Start the whole system on this machine and run it until Ctrl-C; start again what dies.

    Data, ports and tokens stay for the next time, until `groundswell reset`. A part whose address is in the environment
    (KAFKA_BOOTSTRAP_SERVERS, REDIS_URL, POSTGRES_URL, SMTP_URL) is used there and not started.
    """
    from deploy.local.up import up as run

    work = run(broker=broker.value, state_dir=state_dir, as_json=as_json, usual_ports=usual_ports)
    raise typer.Exit(asyncio.run(work))


@app.command()
def kill(
    name: Annotated[str, typer.Argument(help="ingest, verify, tally, notify, kafka, redis, postgres or mail.")],
    freeze: Annotated[
        float | None, typer.Option(min=0.1, max=3600, help="Freeze it for so many seconds instead.")
    ] = None,
    as_json: AsJson = False,
    state_dir: StateDir = STATE_DIR,
) -> None:
    """Kill one part or service of the running `groundswell up` (SIGKILL), and look on until all is well again.

    Says what to watch meanwhile. Exit code 1 when nothing was killed, or not all is well in five minutes.
    """
    from deploy.local.kill import kill as run

    raise typer.Exit(run(name, freeze=freeze, state_dir=state_dir, as_json=as_json))


@app.command()
def reset(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    state_dir: StateDir = STATE_DIR,
) -> None:
    """Remove what `groundswell up` keeps: petitions, signatures, mails, ports and tokens. Refused while it runs."""
    from deploy.local.up import reset as run

    raise typer.Exit(run(state_dir, yes=yes))


# Demo -----------------------------------------------------------------------------------------------------------------


@app.command()
def demo(
    broker: Annotated[Broker, typer.Option(help="Embedded, or real Apache Kafka (needs Java and mvn).")] = (
        Broker.EMBEDDED
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the stack running afterwards, until Ctrl-C.")] = False,
    scale: Annotated[float, typer.Option(help="Multiplies all numbers, 0 < scale <= 1.")] = 1.0,
    state_dir: StateDir = DEMO_STATE_DIR,
) -> None:
    """Send 123,672 signatures and poison records through the whole system, and check every count they must lead to.

    Exit code 1 when anything is not exactly as expected.
    """
    from deploy.demo.run import demo as run

    if not 0 < scale <= 1:
        raise typer.BadParameter("--scale must be above 0 and at most 1")
    raise typer.Exit(
        asyncio.run(run(broker=broker.value, state_dir=state_dir, as_json=as_json, keep=keep, scale=scale))
    )


# Faults and benchmark --------------------------------------------------------------------------------------------------

_PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


@app.command(context_settings=_PASSED_ON)
def faults(context: typer.Context) -> None:
    """Surges through the whole system while everything under it is made to fail: nothing lost, nothing counted twice.

    `groundswell faults --help` names the options. Needs a checkout of the source: the harness is part of the tests.
    """
    raise typer.Exit(_run_from_checkout("tests.faults", context.args))


@app.command(context_settings=_PASSED_ON)
def bench(context: typer.Context) -> None:
    """Measure the whole system against its floors and against what would be built instead, on real parts.

    `groundswell bench --help` names scenarios and options. Needs a checkout of the source, and `make bench` once for
    what it measures with.
    """
    raise typer.Exit(_run_from_checkout("tests.bench", context.args))


def _run_from_checkout(module: str, arguments: list[str]) -> int:
    """Run a module that no installation holds; return its exit code."""
    from deploy.local import PROJECT_ROOT

    if not (PROJECT_ROOT / module.replace(".", "/")).exists():
        raise typer.BadParameter(f"{module} is not part of an installation: run this in a checkout of the source")
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(  # noqa: S603  our own module, the caller's own arguments
        command, env={**os.environ, "PYTHONPATH": str(PROJECT_ROOT)}, check=False
    ).returncode


# Settings, tables and topics ------------------------------------------------------------------------------------------


@app.command()
def check(
    services: Annotated[list[Service] | None, typer.Argument(help="Which services; all, if none is named.")] = None,
    as_json: AsJson = False,
) -> None:
    """Validate the settings that services would start with now. Exit code 2 when one is wrong."""
    from deploy import operate

    names = [service.value for service in services or Service]
    raise typer.Exit(operate.check(names, as_json=as_json))


@app.command()
def migrate(as_json: AsJson = False) -> None:
    """Bring the tables of POSTGRES_URL up to date. Safe to run again, and by several at once."""
    from deploy import operate

    raise typer.Exit(asyncio.run(operate.migrate(as_json=as_json)))


topics = typer.Typer(no_args_is_help=True, help="The Kafka topics.")
app.add_typer(topics, name="topics")


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


# Counts: audit and rebuild --------------------------------------------------------------------------------------------


@app.command()
def audit(petitions: Petitions = None, as_json: AsJson = False) -> None:
    """Compare the counts in Redis with the ledger, exactly, also under traffic. Exit code 1 when anything differs."""
    from deploy import operate

    raise typer.Exit(asyncio.run(operate.audit(list(petitions or []), as_json=as_json)))


@app.command()
def rebuild(
    petitions: Petitions = None,
    force: Annotated[
        bool, typer.Option(help="Also where Redis has counted more than the ledger knows: after PostgreSQL was lost.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Count again from the ledger and replace what Redis has, beside running traffic."""
    from deploy import operate

    raise typer.Exit(asyncio.run(operate.rebuild(list(petitions or []), force=force, as_json=as_json)))


# One signature --------------------------------------------------------------------------------------------------------


@app.command()
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


# Administrators -------------------------------------------------------------------------------------------------------


@app.command()
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


# Deliveries -----------------------------------------------------------------------------------------------------------

deliveries = typer.Typer(no_args_is_help=True, help="The mails to targets: what went to whom, and trying again.")
app.add_typer(deliveries, name="deliveries")


class DeliveryState(StrEnum):
    """Where a delivery is."""

    PENDING = "pending"
    SENDING = "sending"
    SENT = "sent"
    FOLDED = "folded"
    FAILED = "failed"


@deliveries.command("list")
def deliveries_list(
    petition: Annotated[str | None, typer.Option(help="Only those of this petition.")] = None,
    state: Annotated[
        DeliveryState | None, typer.Option(help="Only those in this state. Folded: another mail names them too.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Most that are listed, the last changed first.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Show what went to whom, with the server's last words. Reads POSTGRES_URL."""
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
    """Make failed deliveries due again, at the addresses that their targets have now. What was sent is not sent again.

    Not needed after an address was corrected: what failed for the old one goes to the new one by itself.
    """
    from deploy import deliveries as run

    work = run.retry(petition_id=petition, delivery=delivery, all_failed=all_failed, actor=actor, as_json=as_json)
    raise typer.Exit(asyncio.run(work))


# Capacity -------------------------------------------------------------------------------------------------------------


@app.command()
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


# Generated files ------------------------------------------------------------------------------------------------------


@app.command()
def generated(
    check_only: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit code 1 when a file is stale.")
    ] = False,
) -> None:
    """Make the generated files: OpenAPI documents, event schemas, reason codes, tables and pictures in docs/."""
    from deploy import generated as files

    found = files.stale() if check_only else files.write()
    for path in found:
        typer.echo(f"{path}: {'stale; run `groundswell generated`' if check_only else 'written'}")
    raise typer.Exit(1 if check_only and found else 0)


def main() -> None:
    """Run the command."""
    app()


if __name__ == "__main__":
    main()
