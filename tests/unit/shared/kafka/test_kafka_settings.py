"""Settings of Kafka connections: valid and invalid combinations, and no message with a secret."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import structlog
import trustme
from faststream.security import BaseSecurity, SASLPlaintext, SASLScram512

from shared import service as shared_service
from shared.kafka.security import broker_security, client_options
from shared.runtime.settings import CommonSettings, KafkaSettings, SettingsError, environment_name, load
from shared.service import Service, main

LOGIN = {
    "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
    "KAFKA_SASL_USERNAME": "groundswell",
    "KAFKA_SASL_PASSWORD": "hunter2!",
}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in KafkaSettings.model_fields:
        monkeypatch.delenv(environment_name(KafkaSettings, field), raising=False)
        monkeypatch.delenv(f"{environment_name(KafkaSettings, field)}_FILE", raising=False)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca(authority: trustme.CA) -> str:
    return authority.cert_pem.bytes().decode()


def read(monkeypatch: pytest.MonkeyPatch, **variables: str) -> KafkaSettings:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return load(KafkaSettings)


def test_nothing_said_is_neither_encrypted_nor_logged_in(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read(monkeypatch)
    assert client_options(settings) == {"security_protocol": "PLAINTEXT", "ssl_context": None}
    assert broker_security(settings) is None


def test_what_is_set_to_nothing_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [environment_name(KafkaSettings, field) for field in KafkaSettings.model_fields]
    empty = {name: "" for name in names if "SASL" in name or "SSL" in name}
    assert len(empty) == 6
    assert client_options(read(monkeypatch, **empty))["security_protocol"] == "PLAINTEXT"


def test_an_encrypted_connection_checks_certificate_and_name_and_refuses_old_tls(
    monkeypatch: pytest.MonkeyPatch, ca: str
) -> None:
    settings = read(monkeypatch, KAFKA_SECURITY_PROTOCOL="SSL", KAFKA_SSL_CA=ca)
    context = client_options(settings)["ssl_context"]
    security = broker_security(settings)
    assert type(security) is BaseSecurity
    for one in (context, security.ssl_context):
        assert isinstance(one, ssl.SSLContext)
        assert (one.verify_mode, one.check_hostname) == (ssl.CERT_REQUIRED, True)
        assert one.minimum_version >= ssl.TLSVersion.TLSv1_2
        assert len(one.get_ca_certs()) == 1, "the authority that was named, and none of those this machine trusts"


def test_without_an_authority_those_count_that_the_machine_trusts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, authority: trustme.CA
) -> None:
    authority.cert_pem.write_to_path(tmp_path / "trusted.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "trusted.pem"))
    context = client_options(read(monkeypatch, KAFKA_SECURITY_PROTOCOL="SSL"))["ssl_context"]
    assert len(context.get_ca_certs()) == 1


def test_the_authority_comes_from_a_file_comments_in_any_language_and_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ca: str
) -> None:
    (tmp_path / "ca.pem").write_text(
        f"# Főtanúsítvány\n{ca}\n# und noch eins\n{trustme.CA().cert_pem.bytes().decode()}"
    )
    settings = read(monkeypatch, KAFKA_SECURITY_PROTOCOL="SSL", KAFKA_SSL_CA_FILE=str(tmp_path / "ca.pem"))
    assert len(client_options(settings)["ssl_context"].get_ca_certs()) == 2


def test_a_login_reaches_every_kind_of_client(monkeypatch: pytest.MonkeyPatch, ca: str) -> None:
    settings = read(monkeypatch, KAFKA_SECURITY_PROTOCOL="SASL_SSL", KAFKA_SSL_CA=ca, **LOGIN)
    options = client_options(settings)
    assert {**options, "ssl_context": None} == {
        "security_protocol": "SASL_SSL",
        "ssl_context": None,
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "groundswell",
        "sasl_plain_password": "hunter2!",
    }
    security = broker_security(settings)
    assert isinstance(security, SASLScram512)
    assert (security.username, security.password, security.use_ssl) == ("groundswell", "hunter2!", True)


def test_a_login_without_encryption_is_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = {**LOGIN, "KAFKA_SASL_MECHANISM": "PLAIN", "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT"}
    security = broker_security(read(monkeypatch, **changed))
    assert isinstance(security, SASLPlaintext)
    assert security.use_ssl is False


@pytest.mark.parametrize("protocol", ["SASL_SSL", "SASL_PLAINTEXT"])
@pytest.mark.parametrize("missing", list(LOGIN))
def test_a_login_that_is_not_whole_is_refused_by_the_missing_name(
    monkeypatch: pytest.MonkeyPatch, protocol: str, missing: str
) -> None:
    rest = {name: value for name, value in LOGIN.items() if name != missing}
    with pytest.raises(SettingsError, match=rf"{missing} is not set, and KAFKA_SECURITY_PROTOCOL={protocol} needs"):
        read(monkeypatch, KAFKA_SECURITY_PROTOCOL=protocol, **rest)


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SSL"])
def test_a_login_that_would_not_be_used_is_refused(monkeypatch: pytest.MonkeyPatch, protocol: str) -> None:
    with pytest.raises(SettingsError) as refused:
        read(monkeypatch, KAFKA_SECURITY_PROTOCOL=protocol, **LOGIN)
    assert f"are set, but KAFKA_SECURITY_PROTOCOL is {protocol}: a login needs" in str(refused.value)
    assert all(name in str(refused.value) for name in LOGIN)
    assert "hunter2!" not in str(refused.value)


def test_an_authority_that_would_not_be_used_is_refused(monkeypatch: pytest.MonkeyPatch, ca: str) -> None:
    with pytest.raises(SettingsError, match="KAFKA_SSL_CA is set, but KAFKA_SECURITY_PROTOCOL is SASL_PLAINTEXT"):
        read(monkeypatch, KAFKA_SECURITY_PROTOCOL="SASL_PLAINTEXT", KAFKA_SSL_CA=ca, **LOGIN)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "/etc/ssl/kafka-ca.pem",
            "KAFKA_SSL_CA: holds no certificate in PEM form. Set KAFKA_SSL_CA, or KAFKA_SSL_CA_FILE",
        ),
        (
            "-----BEGIN CERTIFICATE-----\nbm90aGluZw==\n-----END CERTIFICATE-----",
            "holds a certificate that cannot be read",
        ),
    ],
)
def test_an_authority_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, text: str, problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        read(monkeypatch, KAFKA_SECURITY_PROTOCOL="SSL", KAFKA_SSL_CA=text)


def test_a_certificate_of_ours_is_loaded_and_leaves_no_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, authority: trustme.CA
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ours = authority.issue_cert("groundswell.example")
    settings = read(
        monkeypatch,
        KAFKA_SECURITY_PROTOCOL="SSL",
        KAFKA_SSL_CERTIFICATE=ours.cert_chain_pems[0].bytes().decode(),
        KAFKA_SSL_KEY=ours.private_key_pem.bytes().decode(),
    )
    client_options(settings)
    assert not list(tmp_path.iterdir())
    assert "PRIVATE KEY" not in f"{settings!r} {settings.model_dump_json()}"


def test_a_certificate_of_ours_needs_its_own_key(monkeypatch: pytest.MonkeyPatch, authority: trustme.CA) -> None:
    ours, other = authority.issue_cert("a.example"), authority.issue_cert("b.example")
    certificate = ours.cert_chain_pems[0].bytes().decode()
    with pytest.raises(SettingsError, match="KAFKA_SSL_CERTIFICATE and KAFKA_SSL_KEY go together"):
        read(monkeypatch, KAFKA_SECURITY_PROTOCOL="SSL", KAFKA_SSL_CERTIFICATE=certificate)
    key = other.private_key_pem.bytes().decode()
    with pytest.raises(SettingsError, match="do not belong together") as refused:
        read(monkeypatch, KAFKA_SSL_KEY=key)
    assert key.splitlines()[1] not in str(refused.value)
    with pytest.raises(SettingsError, match="the key is encrypted"):
        read(monkeypatch, KAFKA_SSL_KEY="-----BEGIN ENCRYPTED PRIVATE KEY-----")


@pytest.mark.parametrize(
    ("servers", "exposed"),
    [
        ("localhost:9092,kafka:9092,10.1.2.3:9092,[fd00::1]:9092,kafka.corp.internal:9092", ()),
        ("kafka:9092, broker.example.com:9092,192.0.9.9:9092", ("broker.example.com", "192.0.9.9")),
    ],
)
def test_a_password_on_its_way_to_strangers_is_named(
    monkeypatch: pytest.MonkeyPatch, servers: str, exposed: tuple[str, ...]
) -> None:
    settings = read(monkeypatch, KAFKA_BOOTSTRAP_SERVERS=servers, KAFKA_SECURITY_PROTOCOL="SASL_PLAINTEXT", **LOGIN)
    assert [one.hosts for one in settings.exposures()] == ([exposed] if exposed else [])
    monkeypatch.setenv("KAFKA_SECURITY_PROTOCOL", "SASL_SSL")
    assert not load(KafkaSettings).exposures()


def test_a_service_warns_of_it_when_it_starts_and_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    class Started(Service):
        def __init__(self) -> None: ...

        def run(self) -> int:
            return 0

    monkeypatch.setattr(shared_service, "configure_logging", lambda *_: None)
    read(
        monkeypatch,
        KAFKA_BOOTSTRAP_SERVERS="broker.example.com:9092",
        KAFKA_SECURITY_PROTOCOL="SASL_PLAINTEXT",
        **LOGIN,
    )
    with structlog.testing.capture_logs() as logs:
        assert main("verify", CommonSettings, lambda _: Started()) == 0
    (warning,) = [line for line in logs if line["event"] == "password_unencrypted"]
    assert (warning["log_level"], warning["variable"]) == ("warning", "KAFKA_SECURITY_PROTOCOL")
    assert warning["hosts"] == ("broker.example.com",)
