"""What the README names is there: files, commands, options, variables, calls, topics, metrics, figures.

Its generated tables are checked by `groundswell generated --check`, its subscriber is run by
tests/contract/test_subscriber.py.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import typer.main

from deploy.cli import app
from deploy.operate import SERVICES, settings_of
from services.ingest.openapi import document as ingest_document
from services.tally.openapi import document as tally_document
from shared.settings import environment_name
from shared.topics import all_topics
from tests.exported_metrics import metrics_of

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
VALUES = {"SASL_PLAINTEXT", "SASL_SSL"}
"""What looks like the name of a variable and is the value of one."""


def code_blocks(language: str) -> list[str]:
    """The content of the fenced blocks of one language."""
    # Text and blocks take turns; a block begins with its language and a line break.
    blocks = [part.partition("\n") for part in re.split(r"^```", README, flags=re.MULTILINE)[1::2]]
    return [content for found, _, content in blocks if found == language]


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", README)
    inside = [link for link in links if not link.startswith("https://")]
    assert inside
    assert [link for link in inside if not (ROOT / link).exists()] == []


def test_every_file_that_is_named_is_where_it_is_said_to_be() -> None:
    (tree,) = [block for block in code_blocks("") if block.startswith("services/ingest")]
    folder, named = "", 0
    for line in tree.splitlines():
        if not line.startswith(" "):
            folder = line.split()[0]
            assert (ROOT / folder).is_dir()
        for name in re.findall(r"[\w/]+\.(?:py|lua)", line):
            assert (ROOT / folder / name).exists(), f"{folder}: {name}"
            named += 1
    assert named > 10


def test_every_make_target_is_in_the_makefile() -> None:
    targets = set(re.findall(r"\bmake (\w+)(?=`|\s+#)", README))
    assert targets >= {"demo", "up", "test", "check", "setup"}
    assert targets <= set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))


def groundswell_calls() -> list[list[str]]:
    """The words after `groundswell`, up to a comment or the end of the code."""
    return [call.split() for call in re.findall(r"(?:^|`)groundswell ([^`#\n]+)", README, flags=re.MULTILINE)]


@pytest.mark.parametrize("words", groundswell_calls(), ids=" ".join)
def test_every_groundswell_command_has_these_words_and_options(words: list[str]) -> None:
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        assert words[0] in command.commands, f"there is no {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    options = {option for parameter in command.params for option in parameter.opts}
    assert [word for word in words if word.startswith("--") and word not in options] == []


def test_every_python_module_that_is_to_be_run_can_be() -> None:
    modules = re.findall(r"python -m ([\w.]+)", README)
    assert modules
    assert [module for module in modules if importlib.util.find_spec(f"{module}.__main__") is None] == []


def test_every_variable_is_read_by_somebody() -> None:
    known = {
        environment_name(settings_of(service), field)
        for service in SERVICES
        for field in settings_of(service).model_fields
    }
    named = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", README)) - VALUES
    assert named >= {"KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL", "POSTGRES_URL", "SMTP_URL", "SIGNER_PEPPER"}
    assert [name for name in sorted(named) if name.removesuffix("_FILE") not in known] == []


def test_every_topic_is_one_of_ours() -> None:
    named = set(re.findall(r"(?<!\.)\b[a-z]+\.[a-z]+\.v\d+(?:\.dlq)?\b", README))
    assert named == {topic.name for topic in all_topics()}


def test_every_call_of_the_http_table_is_in_an_openapi_document() -> None:
    paths = {**ingest_document()["paths"], **tally_document()["paths"]}  # type: ignore[dict-item]
    calls = re.findall(r"`(GET|POST|PUT|PATCH) (/v1/[^`]+)`(.*)", README)
    assert len(calls) >= 7
    for method, path, rest in calls:
        assert method.lower() in paths[path], path
        for ending in re.findall(r"`…(/[^`]+)`", rest.split("|")[0]):
            assert any(one in paths for one in (path + ending, path.rpartition("/")[0] + ending)), ending


def test_every_metric_is_reported_by_a_service() -> None:
    reported = {metric for service in SERVICES for metric, _ in metrics_of(service)}
    named = set(re.findall(r"\bgroundswell_\w+", README))
    assert named
    assert named <= reported


def test_the_python_in_it_can_be_compiled() -> None:
    blocks = code_blocks("python")
    assert blocks
    for block in blocks:
        compile(block, "README.md", "exec")
