"""Settings of ingest, and the messages about wrong ones."""

import subprocess
import sys

import pytest

from services.ingest.settings import Settings
from shared.runtime.settings import SettingsError, load


@pytest.fixture
def environment(monkeypatch):
    monkeypatch.setenv("SIGNER_PEPPER", "p" * 16)
    monkeypatch.setenv("ADMIN_TOKEN", "a" * 16)
    return monkeypatch


def test_two_secrets_are_enough(environment):
    settings = load(Settings)
    assert (settings.port, settings.client_rate, settings.max_in_flight) == (8001, "120/minute", 2000)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SIGNER_PEPPER", "short"),
        ("ADMIN_TOKEN", "short"),
        ("API_KEYS", "long-enough-a-key,short"),
        ("API_KEYS", "importer:short"),
        ("ADMIN_TOKENS", "a-long-enough-secret-without-a-name"),
        ("ADMIN_TOKENS", "Kim:long-enough-a-secret"),
        ("ADMIN_TOKENS", "kim@:long-enough-a-secret"),
        ("ADMIN_TOKENS", "kim@open-rails+:long-enough-a-secret"),
        ("ADMIN_TOKENS", "kim:long-enough-a-secret,kim:another-long-secret"),
        ("ADMIN_TOKENS", "kim:long-enough-a-secret,lee:long-enough-a-secret"),
        ("ADMIN_TOKENS", "admin:long-enough-a-secret"),  # the name of ADMIN_TOKEN
        ("INGEST_CLIENT_RATE", "many"),
        ("INGEST_WRONG_CREDENTIALS_RATE", "few"),
        ("INGEST_PORT", "0"),
        ("INGEST_MAX_IN_FLIGHT", "none"),
        ("PUBLIC_PAGES_URL", "pages.example"),
    ],
)
def test_a_wrong_setting_is_named_and_its_value_is_not_shown(environment, name, value):
    environment.setenv(name, value)
    with pytest.raises(SettingsError) as error:
        load(Settings)
    assert name in str(error.value)
    assert value not in str(error.value) or value == "0"


def test_the_service_ends_with_code_2_and_names_every_variable_that_is_missing():
    ended = subprocess.run(
        [sys.executable, "-m", "services.ingest"], env={}, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 2
    assert "SIGNER_PEPPER" in ended.stderr
    assert "ADMIN_TOKEN" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_setting_of_named_secrets_is_shown_by_its_names(environment):
    environment.setenv("ADMIN_TOKENS", "kim:long-enough-a-secret, lee@open-rails+river-valley:another-long-secret")
    environment.setenv("API_KEYS", "a-key-of-before-names,importer:a-third-secret-of-ours")
    settings = load(Settings)
    assert (str(settings.admin_tokens), str(settings.api_keys)) == (
        "kim, lee@open-rails+river-valley",
        "key-1, importer",
    )
    shown = repr(settings) + str(settings) + str(settings.administrators()) + str(settings.partners())
    assert "secret-of" not in shown
    assert "long" not in shown
    assert [one.name for one in settings.administrators()] == ["kim", "lee", "admin"]


def test_named_tokens_do_without_the_one_that_has_no_name(environment):
    environment.delenv("ADMIN_TOKEN")
    environment.setenv("ADMIN_TOKENS", "kim:a:secret:with:colons:in:it")
    (kim,) = load(Settings).administrators()
    assert (kim.name, kim.secret) == ("kim", "a:secret:with:colons:in:it")


def test_without_any_administrator_ingest_does_not_start(environment):
    environment.setenv("ADMIN_TOKEN", "")
    with pytest.raises(SettingsError, match="ADMIN_TOKENS"):
        load(Settings)
