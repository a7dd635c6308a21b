"""`groundswell deliveries`, as an operator calls it, while senders run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from click.testing import Result
from typer.testing import CliRunner

from deploy import deliveries
from deploy.cli import app
from deploy.local.parts.ports import free_port
from deploy.local.parts.postgres import Postgres
from services.notify.deliveries import NO_MAIL, delivery_id
from tests.integration.notify.notify_desk import MINUTE, Desk, petition

FERRY = "night-ferry"
POLICY = "550 5.7.1 not from you"

Command = Callable[..., Awaitable[Result]]


@pytest.fixture
def command(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setenv("POSTGRES_URL", database_url)

    async def call(*arguments: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, app, ["deliveries", *arguments])

    return call


async def in_json(command: Command, *arguments: str) -> dict[str, Any]:
    result = await command(*arguments, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


async def fail(desk: Desk, *thresholds: int, answer: str = POLICY, targets: int = 1) -> None:
    for threshold in thresholds:
        await desk.reached(threshold, targets=targets)
        desk.smtp.answer("RCPT", *[answer] * targets)
        async with desk.sending():
            await desk.finished()


def the_id(threshold: int, target: int = 0) -> str:
    return str(delivery_id(FERRY, threshold, f"office-{target}"))


# ------------------------------------------------------------------------------------------------------------------ list


async def test_the_list_says_what_went_to_whom_and_what_the_server_said(desk: Desk, command: Command) -> None:
    await fail(desk, 1000, answer="550 5.1.1 <office0@harbour.example> moved to <private@home.example>")
    await desk.reached(2500)
    await desk.reached(5000)
    async with desk.sending():
        await desk.finished()

    text = (await command("list", "--petition", FERRY)).stdout
    assert f"{the_id(1000)}  failed (address)" in text
    assert "night-ferry: 1,000, to office-0, Office 0 <office0@harbour.example>" in text
    assert "1 attempt, ended 20" in text
    assert "550 5.1.1 <<address>> moved to <<address>> (to RCPT TO)" in text
    assert "home.example" not in text, "where a mailbox is forwarded to is nobody's business here"
    assert f"named by the mail {the_id(5000)}" in text

    failed = await in_json(command, "list", "--state", "failed")
    (one,) = failed["deliveries"]
    assert (one["delivery_id"], one["state"], one["failed_for"], one["attempts"]) == (
        the_id(1000),
        "failed",
        "address",
        1,
    )
    assert one["last_words"]["code"] == 550
    assert one["last_words"]["status"] == "5.1.1"
    assert one["last_words"]["command"] == "RCPT TO"
    assert (await in_json(command, "list", "--petition", "city-park"))["deliveries"] == []
    limited = await in_json(command, "list", "--limit", "2")
    assert (len(limited["deliveries"]), limited["more"]) == (2, True)


async def test_what_servers_and_hands_wrote_into_rows_does_not_reach_the_terminal(desk: Desk, command: Command) -> None:
    await fail(desk, 1000)
    await desk.eyes.execute(
        "UPDATE deliveries SET last_reply = $1, target_name = $2, email = $3, created_at = 'infinity',"
        " finished_at = '20000-01-01', requeued_by = E'\\x1b[31m', requeued_at = '-infinity'",
        f"550 \x1b]0;owned\x07\n\u202e{'x' * 5000} (RCPT TO)",
        "Office\x1b[2J\n0",
        "post@council.example\N{NO-BREAK SPACE}",
    )
    result = await command("list")

    assert result.exit_code == 0
    assert not set(result.stdout) & {"\x1b", "\x07", "\u202e"}
    assert r'<"post@council.example\u00a0">' in result.stdout, "what is wrong with the address can be seen"
    assert max(map(len, result.stdout.splitlines())) < 400
    await in_json(command, "list")


# ----------------------------------------------------------------------------------------------------------------- retry


async def test_one_petitions_failed_mails_are_due_again_and_go_out(desk: Desk, command: Command) -> None:
    await fail(desk, 1000, targets=2)
    await fail(desk, 2500, targets=2)
    said = await in_json(command, "retry", "--petition", FERRY, "--actor", "Kim, helpdesk")
    assert (said["requeued"], said["left"], said["not_by_command"]) == (4, [], {})
    async with desk.sending():
        await desk.finished()

    assert [mail.milestones for mail in desk.smtp.taken] == ["1000, 2500"] * 2
    text = (await command("list")).stdout
    assert "because of command by Kim, helpdesk" in text
    again = await command("retry", "--petition", FERRY)
    assert (again.exit_code, again.stdout) == (
        0,
        "Nothing is due again: no delivery failed that a command can retry.\n",
    )


async def test_one_delivery_or_all_that_failed_are_due_again(desk: Desk, command: Command) -> None:
    await fail(desk, 1000, targets=2)
    one = await command("retry", "--delivery", the_id(1000))
    assert one.exit_code == 0
    assert one.stdout.startswith("1 delivery is due again; those to one target share a mail.")
    assert "Watch: groundswell deliveries list" in one.stdout
    assert sorted(await desk.states()) == ["failed", "pending"]

    assert (await in_json(command, "retry", "--all-failed"))["deliveries"] == [the_id(1000, 1)]
    assert await desk.states() == ["pending", "pending"]


async def test_what_was_sent_or_has_not_failed_is_not_sent_again_and_the_error_says_why(
    desk: Desk, command: Command
) -> None:
    await desk.reached(1000)
    await desk.reached(2500)
    async with desk.sending():
        await desk.finished()
    await desk.reached(5000, minutes=5)
    for delivery, words in (
        (the_id(2500), "a second mail is not sent"),
        (the_id(1000), f"is named by the mail {the_id(2500)}"),
        (the_id(5000), "has not failed: it is due at 20"),
        (str(uuid4()), "There is no delivery"),
    ):
        result = await command("retry", "--delivery", delivery)
        assert result.exit_code == 1
        assert words in " ".join(result.stderr.split())
        assert json.loads((await command("retry", "--delivery", delivery, "--json")).stdout)["ok"] is False
    assert await desk.states() == ["folded", "sent", "pending"]
    await desk.eyes.execute("UPDATE deliveries SET due_at = now()")
    await desk.take(lease_for=MINUTE)
    assert "being sent at this moment" in (await command("retry", "--delivery", the_id(5000))).stderr


async def test_what_no_command_can_help_is_left_and_named(desk: Desk, command: Command) -> None:
    await desk.reached(1000, targets=2)
    desk.catalogue.apply(petition(1))
    async with desk.sending():
        await desk.finished()
    result = await command("retry", "--delivery", the_id(1000, 1))
    assert (result.exit_code, "does not address the target any more" in " ".join(result.stderr.split())) == (1, True)

    await desk.eyes.execute(
        "UPDATE deliveries SET state = 'failed', last_reply = $1, failed_for = NULL WHERE target_id = 'office-0'",
        NO_MAIL,
    )
    result = await command("retry", "--all-failed")
    words = " ".join(result.stderr.split())
    assert result.exit_code == 0
    assert "Left: 1, for their petition does not address the target" in words
    assert "nobody knows whether a mail has named them" in words
    assert await desk.states() == ["failed", "failed"]


async def test_senders_at_work_and_commands_at_once_send_each_mail_once(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("POSTGRES_URL", desk.url)
    await fail(desk, 1000, 2500, targets=5)

    async def retry() -> int:
        return await deliveries.retry(petition_id=None, delivery=None, all_failed=True, actor=None, as_json=True)

    async with desk.sending(claim_batch=2), desk.sending(claim_batch=2):
        assert await asyncio.gather(*(retry() for _ in range(3))) == [0, 0, 0]
        await desk.finished()

    said = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert sum(one["requeued"] for one in said) == 10
    told = [(mail.recipient, one) for mail in desk.smtp.taken for one in mail.milestones.split(", ")]
    assert len(told) == len(set(told)) == 10


# --------------------------------------------------------------------------------------------------------- wrongly asked


async def test_what_is_asked_for_wrongly_or_cannot_be_reached_is_told(
    desk: Desk, command: Command, monkeypatch: pytest.MonkeyPatch, postgres: Postgres
) -> None:
    for arguments, code, words in (
        (("retry",), 2, "name one of --petition, --delivery and --all-failed"),
        (("retry", "--all-failed", "--petition", FERRY), 2, "name one of"),
        (("retry", "--delivery", "nine"), 2, "is not a valid UUID"),
        (("list", "--state", "lost"), 2, "is not one of"),
        (("retry", "--petition", "no-ferry"), 1, "no-ferry has no deliveries"),
    ):
        result = await command(*arguments)
        assert result.exit_code == code
        assert words in " ".join(result.stderr.replace("│", " ").split())
    monkeypatch.setenv("POSTGRES_URL", f"postgresql://nobody@127.0.0.1:{free_port()}/none")
    result = await command("list", "--json")
    assert (result.exit_code, json.loads(result.stdout)["ok"]) == (1, False)
    assert "PostgreSQL is away" in json.loads(result.stdout)["error"]

    empty = await postgres.create_database(f"notify_{uuid4().hex[:8]}")
    monkeypatch.setenv("POSTGRES_URL", empty)
    assert "run `groundswell migrate`" in (await command("list")).stderr
    connection = await asyncpg.connect(empty)
    await connection.execute("CREATE TABLE deliveries (delivery_id uuid, petition_id text, state text)")
    await connection.close()
    assert "run `groundswell migrate`" in (await command("retry", "--all-failed")).stderr
