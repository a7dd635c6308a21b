"""`docs/encrypted-connections.md`: its example is a configuration, and what it quotes is what services say."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import trustme

from deploy.operate import SERVICES, settings_of
from services.notify.settings import Settings as NotifySettings
from services.tally.settings import Settings as TallySettings
from shared.runtime.settings import Exposure, environment_name, load
from tests.integration.whole.encrypted_parts import REDIS_RIGHTS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "encrypted-connections.md").read_text(encoding="utf-8")
KNOWN = {environment_name(settings_of(name), field) for name in SERVICES for field in settings_of(name).model_fields}


@pytest.fixture
def _example(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The example's environment, with its two files in another place."""
    for name in KNOWN:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(f"{name}_FILE", raising=False)
    (tmp_path / "kafka-password").write_text("a password")
    trustme.CA().cert_pem.write_to_path(tmp_path / "private-ca.pem")
    found = [word for line in re.findall(r"^export (.+)$", PAGE, re.MULTILINE) for word in shlex.split(line)]
    assert len(found) == 10
    for setting in found:
        name, _, value = setting.partition("=")
        monkeypatch.setenv(name, re.sub(r"/(run/secrets|etc/ssl)/", f"{tmp_path}/", value))
    monkeypatch.setenv("PUBLIC_PAGES_URL", "https://petitions.example")


@pytest.mark.usefixtures("_example")
def test_the_example_is_a_whole_configuration_that_exposes_nothing() -> None:
    tally, notify = load(TallySettings), load(NotifySettings)
    assert tally.kafka_sasl_password is not None
    assert tally.kafka_sasl_password.get_secret_value() == "a password"
    assert tally.kafka_ssl_ca == notify.smtp_ssl_ca
    assert [*tally.exposures(), *notify.exposures()] == []


@pytest.mark.usefixtures("_example")
def test_without_its_encryption_the_example_exposes_every_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_SECURITY_PROTOCOL", "SASL_PLAINTEXT")
    for name in ("KAFKA_SSL_CA_FILE", "SMTP_SSL_CA_FILE"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("REDIS_URL", "redis://groundswell:password@redis.example.com:6379/0")
    monkeypatch.setenv("POSTGRES_URL", "postgresql://groundswell:password@db.example.com/groundswell")
    monkeypatch.setenv("SMTP_URL", "smtp://groundswell:password@mail.example.com")
    exposed = {one.variable: one for one in [*load(TallySettings).exposures(), *load(NotifySettings).exposures()]}
    assert set(exposed) == {"KAFKA_SECURITY_PROTOCOL", "REDIS_URL", "POSTGRES_URL", "SMTP_URL"}
    assert exposed["REDIS_URL"] == Exposure("REDIS_URL", ("redis.example.com",), exposed["REDIS_URL"].advice)
    assert exposed["KAFKA_SECURITY_PROTOCOL"].hosts == ("kafka-1.example.com", "kafka-2.example.com")
    assert "password@" not in str(exposed)


def test_every_variable_is_read_by_somebody() -> None:
    named = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", PAGE)) - {"SASL_SSL", "SASL_PLAINTEXT", "WRONG_VERSION_NUMBER"}
    assert {name for name in named if name.removesuffix("_FILE") not in KNOWN} == set()


def test_the_rights_in_redis_are_those_that_the_tests_run_with() -> None:
    assert f"user groundswell on >password {REDIS_RIGHTS}\n" in PAGE


def test_what_readiness_says_is_in_the_code() -> None:
    code = "".join(
        (ROOT / path).read_text(encoding="utf-8")
        for path in (
            "shared/runtime/unreachable.py",
            "shared/kafka/failures.py",
            "shared/kafka/security.py",
            "services/notify/mail/smtp.py",
        )
    )
    rows = PAGE.partition("|---|---|\n")[2].partition("\n\n")[0].splitlines()
    said = [quote for row in rows for quote in re.findall(r"`([^`]+)`", row.split("|")[1])]
    # What follows a colon is told by OpenSSL or the server; what stands alone and ends in … is the end of such a thing.
    ours = {quote.partition(": ")[0] for quote in said if ": " in quote or not quote.endswith("…")}
    assert len(ours) == 6
    assert {words for words in ours if words not in code} == set()
