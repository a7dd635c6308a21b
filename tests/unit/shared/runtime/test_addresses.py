"""Addresses of PostgreSQL and Redis: refused at the start, in words that repeat nothing of a password."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme

from shared.runtime.addresses import (
    is_near,
    postgres_exposes_password_to,
    redis_exposes_password_to,
    require_postgres_url,
    require_redis_url,
)

PASSWORD = "s3cr3t"


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("ca") / "ca.pem"
    trustme.CA().cert_pem.write_to_path(file)
    return file


@pytest.fixture(autouse=True)
def _no_defaults_of_libpq(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("PGSSLMODE", "PGSSLROOTCERT"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "127.0.0.1", "::1", "[::1]", "10.0.0.7", "192.168.1.1", "100.64.0.1", "fe80::1", "fd12::1"),
        *("postgres", "db.internal", "redis.default.svc", "redis.default.svc.cluster.local", "nas.local."),
    ],
)
def test_these_hosts_are_near(host: str) -> None:
    assert is_near(host)


@pytest.mark.parametrize("host", ["8.8.8.8", "2606:4700::1111", "db.example.com", "local.example.com", "notlocal.net"])
def test_these_hosts_are_not(host: str) -> None:
    assert not is_near(host)


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://user:{PASSWORD}@db:5432/groundswell",
        f"postgres://user:{PASSWORD}@db/groundswell?sslmode=require",
        f"postgresql://user:{PASSWORD}@one:5432,two:5433/groundswell?target_session_attrs=read-write",
        "postgresql:///groundswell?host=/run/postgresql",
    ],
)
def test_an_address_of_postgres_that_asyncpg_takes_is_taken(url: str) -> None:
    require_postgres_url(url)


def test_postgres_with_everything_checked_is_taken_when_the_file_is_there(ca: Path) -> None:
    require_postgres_url(f"postgresql://user@db/groundswell?sslmode=verify-full&sslrootcert={ca}")


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        (f"mysql://user:{PASSWORD}@db/x", "must begin with postgresql:// or postgres://"),
        (f"postgresql://user:{PASSWORD}@db/x?sslmode=verify_full", "sslmode that is none of"),
        (f"postgresql://user:{PASSWORD}@db/x?sslmode=verify-full", "without sslrootcert"),
        (f"postgresql://user:{PASSWORD}@db/x?sslrootcert=/some/ca.pem", "only sslmode=verify-full"),
        (
            f"postgresql://user:{PASSWORD}@db/x?sslmode=verify-full&sslrootcert=/nowhere.pem",
            "the file that sslrootcert names cannot be read",
        ),
        (f"postgresql://user:{PASSWORD}@db/x?sslmode=verify-full&sslrootcert={__file__}", "nothing in PEM form"),
        (f"postgresql://user:a#{PASSWORD}@db/x", "written %23"),
        (f"postgresql://user:a?{PASSWORD}@db/x", "written %3F"),
        (f"postgresql://user:[{PASSWORD}@db/x", "is no address that can be read"),
    ],
)
def test_an_address_of_postgres_that_asyncpg_would_refuse_or_misread_is_refused(url: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as refused:
        require_postgres_url(url)
    assert PASSWORD not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1:6379/0",
        f"redis://user:{PASSWORD}@redis:6379/1?health_check_interval=30",
        f"rediss://user:{PASSWORD}@redis:6380/0",
        "unix:///run/redis.sock?db=1",
    ],
)
def test_an_address_of_redis_that_redis_py_takes_is_taken(url: str) -> None:
    require_redis_url(url)


def test_redis_with_an_authority_is_taken_when_the_file_is_there(ca: Path) -> None:
    require_redis_url(f"rediss://redis:6380/0?ssl_ca_certs={ca}")


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        (f"http://:{PASSWORD}@redis", "must begin with redis:// or rediss:// or unix://"),
        (f"rediss://:{PASSWORD}@redis?ssl_ca_cert=/ca.pem", "has a parameter that redis-py does not take"),
        (f"redis://:{PASSWORD}@redis?ssl_ca_certs=/ca.pem", "ssl_ go with rediss://"),
        (f"rediss://:{PASSWORD}@redis?ssl_ca_certs=/nowhere.pem", "cannot be read"),
        (f"rediss://:{PASSWORD}@redis?ssl_ca_certs={__file__}", "cannot be read"),
        (f"rediss://:{PASSWORD}@redis?ssl_check_hostname=perhaps&ssl_min_version=new", "does not take"),
        (f"redis://:a?{PASSWORD}@redis", "written %3F"),
        (f"redis://:{PASSWORD}#@redis", "written %23"),
    ],
)
def test_an_address_of_redis_that_redis_py_would_refuse_is_refused(url: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as refused:
        require_redis_url(url)
    assert PASSWORD not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "exposed"),
    [
        (f"postgresql://user:{PASSWORD}@db.example.com/x", ["db.example.com"]),
        (f"postgresql://user:{PASSWORD}@near:5432,db.example.com:5433/x?sslmode=prefer", ["db.example.com"]),
        (f"postgresql://user@/x?host=db.example.com&password={PASSWORD}", ["db.example.com"]),
        (f"postgresql://user:{PASSWORD}@db.example.com/x?sslmode=require", []),
        ("postgresql://user@db.example.com/x", []),
        (f"postgresql://user:{PASSWORD}@[::1]:5432/x", []),
        (f"postgresql://user:{PASSWORD}@/x?host=/run/postgresql", []),
    ],
)
def test_a_password_for_postgres_that_may_go_unencrypted_to_strangers_is_named(url: str, exposed: list[str]) -> None:
    assert postgres_exposes_password_to(url) == exposed


@pytest.mark.parametrize(
    ("url", "exposed"),
    [
        (f"redis://:{PASSWORD}@redis.example.com:6379/0", ["redis.example.com"]),
        (f"redis://redis.example.com:6379/0?password={PASSWORD}", ["redis.example.com"]),
        (f"rediss://:{PASSWORD}@redis.example.com/0?ssl_cert_reqs=none", ["redis.example.com"]),
        (f"rediss://:{PASSWORD}@redis.example.com/0", []),
        ("redis://redis.example.com/0", []),
        (f"redis://:{PASSWORD}@valkey:6379/0", []),
    ],
)
def test_a_password_for_redis_that_may_go_unencrypted_to_strangers_is_named(url: str, exposed: list[str]) -> None:
    assert redis_exposes_password_to(url) == exposed
