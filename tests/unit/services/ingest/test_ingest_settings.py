"""What can be turned of ingest, and what it says when it is turned wrong."""

import subprocess
import sys

import pytest

from services.ingest.settings import Settings
from shared.settings import SettingsError, load


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
