"""The configuration of the Apache Kafka node, and what happens without Java or Maven."""

from pathlib import Path

import pytest

from deploy.local.parts.apache_kafka import ApacheKafka, KafkaJarsMissing, fetch_jars, server_properties


def test_the_node_listens_on_loopback_only() -> None:
    settings = server_properties(port=20_001, controller_port=20_002, data_dir=Path("/data"))
    assert settings["listeners"] == "PLAINTEXT://127.0.0.1:20001,CONTROLLER://127.0.0.1:20002"
    assert settings["advertised.listeners"] == settings["listeners"]


def test_a_second_listener_sends_its_clients_to_the_port_of_a_proxy() -> None:
    settings = server_properties(
        port=20_001,
        controller_port=20_002,
        data_dir=Path("/data"),
        services_port=20_003,
        services_advertised_port=20_004,
    )
    assert settings["listeners"].endswith(",SERVICES://127.0.0.1:20003")
    assert settings["advertised.listeners"].endswith(",SERVICES://127.0.0.1:20004")
    assert "PLAINTEXT://127.0.0.1:20001" in settings["advertised.listeners"]
    assert settings["listener.security.protocol.map"].endswith(",SERVICES:PLAINTEXT")


def test_a_second_listener_without_the_port_of_its_proxy_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="belong together"):
        ApacheKafka(data_dir=tmp_path, log_dir=tmp_path, services_port=20_003)


def test_the_node_makes_no_topics_and_replicates_nothing() -> None:
    settings = server_properties(port=20_001, controller_port=20_002, data_dir=Path("/data"))
    assert settings["auto.create.topics.enable"] == "false"
    assert {value for key, value in settings.items() if key.endswith("replication.factor")} == {"1"}


JAVA_17 = """echo 'openjdk version "17.0.15" 2025-04-15'"""


@pytest.fixture
def a_pom(tmp_path: Path) -> Path:
    pom = tmp_path / "pom.xml"
    pom.write_text("<project/>")
    return pom


def a_program(folder: Path, name: str, script: str) -> None:
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


@pytest.fixture
def path_of_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is all of the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    return folder


@pytest.mark.usefixtures("path_of_programs")
async def test_without_java_the_message_names_the_package(a_pom: Path, tmp_path: Path) -> None:
    with pytest.raises(KafkaJarsMissing, match="default-jre-headless"):
        await fetch_jars(a_pom, tmp_path / "kafka")


@pytest.mark.parametrize("version", ["11.0.2", "1.8.0_432"])
async def test_an_old_java_is_none(a_pom: Path, tmp_path: Path, path_of_programs: Path, version: str) -> None:
    a_program(path_of_programs, "java", f"""echo 'java version "{version}"'""")
    with pytest.raises(KafkaJarsMissing, match=f"17 or newer; .*{version}"):
        await fetch_jars(a_pom, tmp_path / "kafka")


async def test_without_maven_the_message_names_the_package(a_pom: Path, tmp_path: Path, path_of_programs: Path) -> None:
    a_program(path_of_programs, "java", JAVA_17)
    with pytest.raises(KafkaJarsMissing, match="Debian: maven"):
        await fetch_jars(a_pom, tmp_path / "kafka")


async def test_without_maven_central_the_message_is_mavens_and_nothing_is_left(
    a_pom: Path, tmp_path: Path, path_of_programs: Path
) -> None:
    a_program(path_of_programs, "java", JAVA_17)
    a_program(path_of_programs, "mvn", "echo no route to host; exit 1")
    with pytest.raises(KafkaJarsMissing, match="no route to host"):
        await fetch_jars(a_pom, tmp_path / "kafka")
    assert [path.name for path in (tmp_path / "kafka").iterdir()] == ["lock"]


async def test_jars_are_fetched_once_for_a_pom_and_again_when_it_changes(
    a_pom: Path, tmp_path: Path, path_of_programs: Path
) -> None:
    a_program(path_of_programs, "java", JAVA_17)
    a_program(
        path_of_programs,
        "mvn",
        f"""echo run >> {tmp_path}/runs
        for word in "$@"; do case $word in -DoutputDirectory=*) to=${{word#*=}};; esac; done
        /bin/mkdir -p $to && echo jar > $to/kafka_2.13-4.jar""",
    )
    first = await fetch_jars(a_pom, tmp_path / "kafka")
    assert (first / "kafka_2.13-4.jar").exists()
    assert await fetch_jars(a_pom, tmp_path / "kafka") == first
    assert (tmp_path / "runs").read_text() == "run\n"

    a_pom.write_text("<project>another version</project>")
    assert await fetch_jars(a_pom, tmp_path / "kafka") != first
    assert (tmp_path / "runs").read_text() == "run\nrun\n"
