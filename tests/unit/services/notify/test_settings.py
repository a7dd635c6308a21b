"""Settings of notify, and the messages about wrong ones."""

import os

import pytest
import trustme

from services.notify.app import build
from services.notify.settings import Settings
from shared.runtime.settings import SettingsError, load
from shared.service import main

RIGHT = {
    "POSTGRES_URL": "postgresql://me:hunter2@127.0.0.1/groundswell",
    "SMTP_URL": "smtp+starttls://me:hunter2@relay.example",
    "PUBLIC_PAGES_URL": "https://pages.example/",
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment with only notify's required settings."""
    for name in [name for name in os.environ if name.startswith("NOTIFY_")]:
        monkeypatch.delenv(name)
    for name, value in RIGHT.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_three_addresses_are_all_that_is_needed(environment: pytest.MonkeyPatch) -> None:
    settings = load(Settings)

    assert settings.port == 8004
    assert settings.coalesce_seconds == 120
    assert settings.public_pages_url == "https://pages.example"
    assert "hunter2" not in str(settings.smtp_url)


@pytest.mark.parametrize("name", ["SMTP_URL", "PUBLIC_PAGES_URL"])
def test_what_is_missing_is_named(name: str, environment: pytest.MonkeyPatch) -> None:
    environment.delenv(name)

    with pytest.raises(SettingsError, match=f"{name}: is not set"):
        load(Settings)


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("SMTP_URL", "relay.example:hunter2", "SMTP_URL: must begin with smtp://"),
        ("PUBLIC_PAGES_URL", "pages.example", "PUBLIC_PAGES_URL: must begin with https://"),
        ("NOTIFY_MAIL_FROM", "nobody", "NOTIFY_MAIL_FROM: must be an e-mail address"),
        ("NOTIFY_COALESCE_SECONDS", "-1", "NOTIFY_COALESCE_SECONDS: "),
        ("NOTIFY_LEASE_SECONDS", "61", "NOTIFY_LEASE_SECONDS: must be at least twice NOTIFY_SMTP_TIMEOUT_SECONDS"),
        ("NOTIFY_RETRY_MOST_SECONDS", "1", "NOTIFY_RETRY_MOST_SECONDS: must not be below NOTIFY_RETRY_FIRST_SECONDS"),
    ],
)
def test_what_is_wrong_is_named_without_its_value(
    name: str, value: str, what: str, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv(name, value)

    with pytest.raises(SettingsError) as error:
        load(Settings)
    assert what in str(error.value)
    assert "hunter2" not in str(error.value)


def test_notify_does_not_start_on_a_wrong_configuration(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.delenv("SMTP_URL")
    environment.setenv("NOTIFY_PORT", "0")

    assert main("notify", Settings, build) == 2
    told = capsys.readouterr().err
    assert "SMTP_URL" in told
    assert "NOTIFY_PORT" in told


def test_an_authority_for_a_relay_without_encryption_is_refused(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("SMTP_SSL_CA", trustme.CA().cert_pem.bytes().decode())
    environment.setenv("SMTP_URL", "smtp+starttls://relay.example")
    assert load(Settings).smtp_ssl_ca
    environment.setenv("SMTP_URL", "smtp://relay.example")
    with pytest.raises(SettingsError, match="SMTP_SSL_CA: is set, but SMTP_URL begins with smtp://"):
        load(Settings)
