"""What `make test` installs, and its messages when it may not."""

import os
from pathlib import Path

import pytest

from tests.needs import NeedMissing, Program, bring_apache_kafka, how_to_install, install, missing

HAMMER = Program(names=("hammer", "mallet"), package="hand-tools", needed_for="nails")
SAW = Program(names=("saw",), package="hand-tools", needed_for="planks")


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is all of the PATH, of a user who is not root."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.delenv("GROUNDSWELL_REQUIRE_APACHE", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    return tmp_path


def test_a_program_is_there_under_any_of_its_names(programs: Path) -> None:
    assert missing([HAMMER, SAW]) == [HAMMER, SAW]
    (programs / "mallet").touch(mode=0o755)
    assert missing([HAMMER, SAW]) == [SAW]


def test_the_advice_names_every_program_and_each_package_once() -> None:
    advice = how_to_install([HAMMER, SAW])
    assert "hammer or mallet, for nails" in advice
    assert "saw, for planks" in advice
    assert advice.endswith("apt-get install hand-tools")


@pytest.mark.usefixtures("programs")
def test_a_user_who_may_not_install_is_told_what_to_install() -> None:
    with pytest.raises(NeedMissing, match="apt-get install hand-tools"):
        install([HAMMER])


@pytest.mark.usefixtures("programs")
def test_nothing_is_installed_when_nothing_is_missing() -> None:
    install([])


@pytest.mark.usefixtures("programs")
async def test_without_java_the_tests_go_on_on_the_embedded_broker(capsys: pytest.CaptureFixture[str]) -> None:
    await bring_apache_kafka()
    said = capsys.readouterr().err
    assert "default-jre-headless" in said
    assert "embedded broker" in said


@pytest.mark.usefixtures("programs")
async def test_without_java_the_tests_stop_where_apache_kafka_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUNDSWELL_REQUIRE_APACHE", "1")
    with pytest.raises(NeedMissing, match="default-jre-headless"):
        await bring_apache_kafka()
