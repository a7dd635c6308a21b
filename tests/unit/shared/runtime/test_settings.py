"""Settings: from the environment or from files, checked at start, never shown."""

from pathlib import Path

import pytest
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import SettingsConfigDict

from shared.runtime.settings import CommonSettings, Secret, SettingsError, environment_name, load

PEPPER = "a pepper of a good length"


class ExampleSettings(CommonSettings):
    """A service's settings."""

    model_config = SettingsConfigDict(env_prefix="EXAMPLE_")

    pepper: Secret = Field(validation_alias="SIGNER_PEPPER", description="The secret of the signer keys.")
    port: int = Field(8000, ge=1, description="The port.")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in ExampleSettings.model_fields:
        name = environment_name(ExampleSettings, field)
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(f"{name}_FILE", raising=False)
    monkeypatch.setenv("SIGNER_PEPPER", PEPPER)


def test_without_any_variable_the_defaults_hold() -> None:
    settings = CommonSettings()
    assert settings.kafka_bootstrap_servers == "127.0.0.1:9092"
    assert settings.kafka_idempotence is True
    assert settings.kafka_compression == "lz4"
    assert settings.drain_seconds == 10


def test_variables_have_the_documented_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "kafka:9092")
    monkeypatch.setenv("KAFKA_IDEMPOTENCE", "false")
    monkeypatch.setenv("EXAMPLE_PORT", "8009")
    monkeypatch.setenv("EXAMPLE_HOST", "0.0.0.0")
    settings = load(ExampleSettings)
    assert (settings.kafka_bootstrap_servers, settings.kafka_idempotence) == ("kafka:9092", False)
    assert (settings.host, settings.port) == ("0.0.0.0", 8009)


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_value_may_come_from_a_file_without_its_last_line_break(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    (tmp_path / "pepper").write_text(f" pépper from a file {ending}", encoding="utf-8", newline="")
    monkeypatch.delenv("SIGNER_PEPPER")
    monkeypatch.setenv("SIGNER_PEPPER_FILE", str(tmp_path / "pepper"))
    assert load(ExampleSettings).pepper.get_secret_value() == " pépper from a file "


def test_a_number_with_a_prefixed_name_may_come_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "port").write_text("8010\n")
    monkeypatch.setenv("EXAMPLE_PORT_FILE", str(tmp_path / "port"))
    assert load(ExampleSettings).port == 8010


def test_the_variable_itself_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pepper").write_text("pepper from a file")
    monkeypatch.setenv("SIGNER_PEPPER_FILE", str(tmp_path / "pepper"))
    assert load(ExampleSettings).pepper.get_secret_value() == PEPPER


def test_an_argument_wins_over_everything() -> None:
    assert ExampleSettings(pepper=SecretStr("pepper from an argument")).pepper.get_secret_value() != PEPPER


def test_a_file_that_cannot_be_read_is_named_with_its_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGNER_PEPPER_FILE", str(tmp_path / "nowhere"))
    with pytest.raises(SettingsError, match=r"SIGNER_PEPPER_FILE names .*nowhere"):
        load(ExampleSettings)


def test_a_file_that_is_not_text_is_refused_without_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pepper").write_bytes(b"secret\xff\xfe")
    monkeypatch.setenv("SIGNER_PEPPER_FILE", str(tmp_path / "pepper"))
    with pytest.raises(SettingsError) as failure:
        load(ExampleSettings)
    assert "SIGNER_PEPPER_FILE" in str(failure.value)
    assert "secret" not in str(failure.value)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        load(ExampleSettings).port = 1  # type: ignore[misc]


def test_a_secret_is_not_shown() -> None:
    settings = load(ExampleSettings)
    shown = f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    assert PEPPER not in shown


def test_a_secret_that_is_refused_is_not_shown_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGNER_PEPPER", "2short")
    with pytest.raises(SettingsError) as failure:
        load(ExampleSettings)
    with pytest.raises(ValidationError) as bare:
        ExampleSettings()
    assert "SIGNER_PEPPER: must have at least 16 characters" in str(failure.value)
    assert "2short" not in f"{failure.value}{bare.value}{failure.value.__cause__}"
    assert failure.value.__suppress_context__


def test_every_variable_that_is_missing_or_wrong_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SIGNER_PEPPER")
    monkeypatch.setenv("EXAMPLE_PORT", "http")
    monkeypatch.setenv("DRAIN_SECONDS", "0")
    with pytest.raises(SettingsError) as failure:
        load(ExampleSettings)
    text = str(failure.value)
    assert "SIGNER_PEPPER: is not set" in text
    assert "EXAMPLE_PORT: " in text
    assert "DRAIN_SECONDS: " in text
    assert "http" not in text
