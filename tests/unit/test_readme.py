"""Everything that the README and the readers' pages name exists: files, commands, options, variables, calls, topics, metrics.

Generated tables are checked by `groundswell generated --check`. The subscribers are run by
tests/contract/test_subscriber.py, "Your first petition" by tests/contract/test_first_petition.py. Links and shell blocks
are checked in every document; docs/encrypted-connections.md has tests of its own.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main
from ruamel.yaml import YAML

from deploy.cli import app
from deploy.local.first_steps import PETITION, SIGNATURE
from deploy.local.victims import VICTIMS, Victim
from deploy.operate import SERVICES, settings_of
from services.ingest.openapi.document import document as ingest_document
from services.tally.reading.openapi import document as tally_document
from shared.contract.topics import all_topics
from shared.runtime.settings import environment_name
from tests.support.exported_metrics import metrics_of

ROOT = Path(__file__).resolve().parents[2]
READ_BY_USERS = (
    "README",
    "docs/petition-sites",
    "docs/subscribing",
    "docs/production",
    "docs/operating",
    "docs/settings",
)
README = "\n".join((ROOT / f"{name}.md").read_text(encoding="utf-8") for name in READ_BY_USERS)
"""The README and the pages that it leads its readers to."""
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", ".github/**/*.md", "docs/**/*.md", "examples/*.md", "services/*/*.md")
    for path in ROOT.glob(pattern)
)
VALUES = {"SASL_PLAINTEXT", "SASL_SSL"}
"""Values that look like names of variables."""
WRITTEN = {"MAILBOX_URL"}
"""Variables that `groundswell up` writes for users, besides settings."""


def code_blocks(language: str, page: str = README) -> list[str]:
    """The content of the fenced blocks of one language."""
    # Text and blocks take turns; a block begins with its language and a line break.
    blocks = [part.partition("\n") for part in re.split(r"^```", page, flags=re.MULTILINE)[1::2]]
    return [content for found, _, content in blocks if found == language]


def anchors(page: Path) -> set[str]:
    """What a link to a part of a page may name: its headings, as GitHub makes anchors of them, and its own marks."""
    text = page.read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings} | set(
        re.findall(r'<a id="([\w-]+)">', text)
    )


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if link.startswith(("https://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


OF_THE_READER = {"deploy/.env"}
"""A file that a document asks its reader to create."""
FILE = re.compile(r"`((?:services|shared|deploy|tests|docs|examples)/[\w./*-]+)(?:::[\w:]+)?`")


PRESENT = [page for page in DOCUMENTS if page.name != "CHANGELOG.md"]
"""The documents about the present state."""


@pytest.mark.parametrize("page", PRESENT, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_is_named_is_where_it_is_said_to_be(page: Path) -> None:
    named = set(FILE.findall(page.read_text(encoding="utf-8"))) - OF_THE_READER
    assert sorted(path for path in named if not any(ROOT.glob(path.rstrip("/")))) == []


def test_files_are_named() -> None:
    assert sum(len(FILE.findall(page.read_text(encoding="utf-8"))) for page in DOCUMENTS) > 100


def test_every_make_target_is_in_the_makefile() -> None:
    targets = set(re.findall(r"\bmake (\w+)(?=`|\s+#)", README))
    assert targets >= {"demo", "up", "test", "check", "setup"}
    assert targets <= set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))


def groundswell_calls() -> list[list[str]]:
    """The words after `groundswell`, up to a comment or the end of the code."""
    return [call.split() for call in re.findall(r"(?:^|`)groundswell ([^`#\n]+)", README, flags=re.MULTILINE)]


def shell_lines() -> list[tuple[str, list[str]]]:
    """Every line of a shell block of a document, as words, with the page that it is on."""
    return [
        (page.name, words)
        for page in DOCUMENTS
        for block in code_blocks("sh", page.read_text(encoding="utf-8"))
        for line in block.replace("\\\n", " ").splitlines()
        if (words := shlex.split(line, comments=True))
    ]


@pytest.mark.parametrize(("page", "words"), shell_lines(), ids=lambda part: part if isinstance(part, str) else part[0])
def test_every_line_of_a_shell_block_names_what_is_there(page: str, words: list[str]) -> None:
    match words:
        case [("export" | "." | "curl"), *_]:
            return  # run by tests, as they stand
        case ["make", target, *_]:
            assert target in make_targets(), page
        case [("groundswell" | ".venv/bin/groundswell"), *rest]:
            check_words(rest)
        case [("python" | ".venv/bin/python"), "-m", module, *_]:
            source = ROOT / module.replace(".", "/")
            assert source.with_suffix(".py").exists() or (source / "__main__.py").exists(), page
        case ["docker", "compose", "--file", file, *_]:
            assert (ROOT / file).exists()
        case _:
            pytest.fail(f"{page}: nobody checks {shlex.join(words)}")


def make_targets() -> set[str]:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([\w-]+):", makefile, flags=re.MULTILINE))


@pytest.mark.parametrize("words", groundswell_calls(), ids=" ".join)
def test_every_groundswell_command_has_these_words_and_options(words: list[str]) -> None:
    check_words(words)


def check_words(words: list[str]) -> None:
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        assert words[0] in command.commands, f"there is no {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    if command.context_settings.get("ignore_unknown_options"):  # they are the harness's, which is part of the tests
        return
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
    named = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", README)) - VALUES - WRITTEN
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


def test_the_block_for_production_passes_the_check_as_it_stands(tmp_path: Path) -> None:
    (block,) = [block for block in code_blocks("sh") if "export SIGNER_PEPPER" in block]
    exports, check, _ = block.partition("groundswell check ")
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    run = subprocess.run(
        ["bash", "-e", "-c", f"{exports}{check} --json"],
        cwd=tmp_path,
        env={"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    said = json.loads(run.stdout)
    assert (run.returncode, said["ok"], said["errors"]) == (0, True, {}), run.stdout
    assert set(said["settings"]) == set(SERVICES)
    assert said["settings"]["notify"]["PUBLIC_PAGES_URL"].startswith("https://")


@pytest.mark.parametrize("victim", [each for each in VICTIMS if each.name != "kafka-files"], ids=lambda each: each.name)
def test_the_table_of_what_dies_says_how_to_kill_it(victim: Victim) -> None:
    (row,) = [line for line in README.splitlines() if line.endswith(f"| `groundswell kill {victim.name}` |")]
    assert victim.name in row.partition("**")[2].partition("**")[0].lower().replace("smtp", "mail")


def test_the_first_petition_is_the_one_that_up_prints() -> None:
    (block,) = [block for block in code_blocks("sh") if block.startswith(". .groundswell/env")]
    assert f"'{PETITION}'" in block
    assert f"'{SIGNATURE}'" in block


def test_make_help_prints_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (phony,) = re.findall(r"^\.PHONY: (.+)$", makefile, flags=re.MULTILINE)
    help_of = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    said = dict(re.findall(r"^  make ([\w-]+) +(\S.*)$", help_of, flags=re.MULTILINE))
    assert said.keys() == set(phony.split())


def test_the_hooks_run_what_setup_has_installed() -> None:
    hooks = YAML(typ="safe").load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    programs = {hook["entry"].split()[0] for repo in hooks["repos"] for hook in repo["hooks"]}
    assert {"ruff", "lint-imports", "groundswell"} <= {Path(program).name for program in programs}
    assert [program for program in programs if not (ROOT / program).exists()] == []


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_says_what_it_is(service: str) -> None:
    text = (ROOT / "services" / service / "README.md").read_text(encoding="utf-8")
    assert [
        part for part in ("Rooms", "Reads", "Writes", "Kill it", "Start reading") if f"**{part}**" not in text
    ] == []
    folders = {path.parent.name for path in (ROOT / "services" / service).glob("*/__init__.py")}
    assert sorted(folder for folder in folders if f"`{folder}/`" not in text) == []


def test_every_page_is_in_the_index_of_the_documentation() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert sorted(page for page in pages if f"]({page})" not in index) == []


def test_every_word_of_our_own_in_the_glossary_is_one_that_the_code_uses() -> None:
    words = re.findall(r"^\| ([^|*]+)\* \|", (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(words) > 10
    code = "\n".join(
        path.read_text(encoding="utf-8").lower()
        for top in ("services", "shared")
        for path in (ROOT / top).rglob("*.py")
    )
    assert [word for word in words if word not in code] == []
