"""`groundswell check`: what is wrong, and what is exposed."""

from __future__ import annotations

import json

import pytest

from deploy.operate import SERVICES, check, settings_of
from shared.runtime.settings import environment_name


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for service in SERVICES:
        for field in settings_of(service).model_fields:
            name = environment_name(settings_of(service), field)
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(f"{name}_FILE", raising=False)


def test_a_password_that_travels_unencrypted_is_named_once_and_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("POSTGRES_URL", "postgresql://groundswell:hunter2@db.example.com/groundswell")
    monkeypatch.setenv("SIGNER_PEPPER", "a pepper of a good length")
    assert check(["verify", "tally"], as_json=True) == 0
    said = json.loads(capsys.readouterr().out)
    (warning,) = said["warnings"]
    assert warning.startswith("POSTGRES_URL sends a password unencrypted to db.example.com; use sslmode=verify-full")
    assert "hunter2" not in str(said)

    assert check(["tally"], as_json=False) == 0
    assert "POSTGRES_URL sends a password unencrypted" in " ".join(capsys.readouterr().err.split())


def test_settings_that_do_not_fit_together_are_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KAFKA_SASL_PASSWORD", "hunter2")
    assert check(["tally"], as_json=True) == 2
    said = json.loads(capsys.readouterr().out)
    assert "KAFKA_SASL_PASSWORD is set, but KAFKA_SECURITY_PROTOCOL is PLAINTEXT" in said["errors"]["tally"]
    assert "hunter2" not in str(said)


@pytest.mark.parametrize("as_json", [True, False])
def test_tokens_and_keys_are_shown_by_their_names(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, as_json: bool
) -> None:
    monkeypatch.setenv("SIGNER_PEPPER", "a pepper of a good length")
    monkeypatch.setenv("ADMIN_TOKENS", "kim:hunter2-hunter2-hunter2,lee@open-rails:hunter3-hunter3-hunter3")
    monkeypatch.setenv("API_KEYS", "importer:hunter4-hunter4-hunter4,hunter5-hunter5-hunter5")
    assert check(["ingest"], as_json=as_json) == 0
    said = "".join(capsys.readouterr())
    assert "kim, lee@open-rails" in said
    assert "importer, key-2" in said
    assert "hunter" not in said
