"""The SMTP connection: encryption, login, and what readiness knows without logging in at every probe."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Literal

import pytest

from deploy.local.parts.ports import LOOPBACK
from services.notify.mail.letter import Mail
from services.notify.mail.replies import Stage
from services.notify.mail.smtp import SmtpAway, SmtpRelay, SmtpServer
from services.notify.mail.smtp_session import MailCut
from tests.support.scripted_smtp import CUT, ScriptedSmtp

MAIL = Mail("petitions@groundswell.example", "office@harbour.example", b"Subject: hello\r\n\r\nHello.\r\n", utf8=False)


def relay(url: str, timeout_seconds: float = 5.0) -> SmtpRelay:
    return SmtpRelay(SmtpServer.parse(url), timeout_seconds=timeout_seconds)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a self-signed certificate for 127.0.0.1, in one file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the openssl command to make a certificate")
    folder = tmp_path_factory.mktemp("certificate")
    key, file, both = folder / "key.pem", folder / "certificate.pem", folder / "both.pem"
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "1", "-subj", "/CN=relay", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(file)),
        ],
        check=True,
        capture_output=True,
    )
    both.write_bytes(key.read_bytes() + file.read_bytes())
    return both


def serving(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


async def test_starttls_and_login_come_before_the_first_mail(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))  # what this machine trusts
    async with ScriptedSmtp(tls=serving(certificate), login=("me@home", "s3:cret")) as smtp:
        url = f"smtp+starttls://me%40home:s3%3Acret@{LOOPBACK}:{smtp.port}"
        async with relay(url).session() as session:
            reply = await session.send(MAIL)

    assert reply.code == 250
    assert len(smtp.taken) == 1


async def test_a_server_whose_certificate_nobody_trusts_gets_neither_password_nor_mail(certificate: Path) -> None:
    async with ScriptedSmtp(tls=serving(certificate), login=("me", "secret")) as smtp:
        with pytest.raises(SmtpAway, match="certificate is not accepted: self-signed certificate"):
            async with relay(f"smtp+starttls://me:secret@{LOOPBACK}:{smtp.port}").session():
                pass
    assert not smtp.taken


async def test_a_server_without_starttls_gets_nothing_either() -> None:
    async with ScriptedSmtp() as smtp:
        with pytest.raises(SmtpAway, match="cannot do what is asked"):
            async with relay(f"smtp+starttls://{LOOPBACK}:{smtp.port}").session():
                pass


async def test_a_refused_login_is_remembered_by_readiness_although_the_server_is_there(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with ScriptedSmtp(tls=serving(certificate), login=("me", "secret")) as smtp:
        server = relay(f"smtp+starttls://me:wrong@{LOOPBACK}:{smtp.port}")
        assert await server.check() is None
        with pytest.raises(SmtpAway) as refusal:
            async with server.session():
                pass
        assert await server.check() == str(refusal.value) == "the SMTP server refuses the login: 535"


async def test_readiness_sees_a_server_go_and_come_without_connecting_at_every_probe() -> None:
    async with ScriptedSmtp() as smtp:
        server = relay(smtp.url)
        for _ in range(5):
            assert await server.check() is None
        assert smtp.greeted == 1
        await smtp.stop()
        other = relay(smtp.url)
        assert "cannot be reached: ConnectionRefusedError" in (await other.check() or "")
        await smtp.start()
        assert await other.check() is None


async def test_a_server_that_accepts_connections_and_says_nothing_is_away() -> None:
    silent = await asyncio.start_server(lambda _reader, _writer: asyncio.sleep(60), LOOPBACK, 0)
    port = silent.sockets[0].getsockname()[1]
    try:
        with pytest.raises(SmtpAway, match="does not answer in time"):
            async with relay(f"smtp://{LOOPBACK}:{port}", timeout_seconds=0.2).session():
                pass
    finally:
        silent.close()


@pytest.mark.parametrize(("command", "stage"), [("RCPT", Stage.RECIPIENT), ("DATA", Stage.CONTENT)])
async def test_a_cut_says_how_far_the_mail_had_come(command: Literal["RCPT", "DATA"], stage: Stage) -> None:
    async with ScriptedSmtp() as smtp:
        smtp.answer(command, CUT)
        async with relay(smtp.url).session() as session:
            with pytest.raises(MailCut) as cut:
                await session.send(MAIL)
            assert cut.value.stage is stage
            assert (await session.send(MAIL)).code == 250, "the next mail goes over a new connection"


async def test_a_connection_that_ends_before_a_mail_was_offered_is_replaced_without_a_word() -> None:
    async with ScriptedSmtp() as smtp:
        smtp.answer("MAIL", CUT)
        async with relay(smtp.url).session() as session:
            assert (await session.send(MAIL)).code == 250
    assert smtp.connections == 2
