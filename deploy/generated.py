"""Files that are generated from the code, and the check that they are up to date."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

from annotated_types import Ge, Gt, Le, Lt
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from deploy import performance, rooms
from deploy.capacity.costs import read_costs
from deploy.capacity.show import page_costs, page_tables
from deploy.operate import SERVICES, settings_of
from services.ingest.openapi.document import document as ingest_document
from services.tally.reading.openapi import document as tally_document
from services.verify.deciding.rules import REASONS
from shared.asyncapi import system_document
from shared.contract.eligibility import CODES
from shared.contract.events import Event
from shared.contract.topics import TOPICS, all_topics
from shared.runtime.settings import environment_name

ROOT = Path(__file__).resolve().parent.parent
EVENTS = "docs/events"
"""A folder that holds generated files only."""


def generated_files() -> dict[str, str]:
    """Return the content of every generated file, by its path from the project's root."""
    return {
        "docs/openapi.json": _json(ingest_document()),
        "docs/openapi-tally.json": _json(tally_document()),
        "docs/reason-codes.md": _reason_codes(),
        **_events(),
        "docs/settings.md": _filled("docs/settings.md", {"settings": _settings}),
        "docs/subscribing.md": _filled("docs/subscribing.md", _subscribing()),
        "docs/architecture.md": _filled("docs/architecture.md", {"picture": rooms.picture, "rooms": rooms.table}),
        "docs/adr/README.md": _filled("docs/adr/README.md", {"decisions": _decisions}),
        "docs/capacity.md": _filled("docs/capacity.md", _capacity()),
        "docs/performance.md": _filled("docs/performance.md", _performance()),
    }


def stale() -> list[str]:
    """Return the generated files that are missing, differ from the code, or are left over."""
    files = generated_files()
    return [path for path, content in files.items() if _read(ROOT / path) != content] + _left_over(files)


def write() -> list[str]:
    """Write the generated files and remove left-over ones. Returns the files that changed."""
    changed = []
    files = generated_files()
    for path, content in files.items():
        if _read(ROOT / path) != content:
            (ROOT / path).parent.mkdir(exist_ok=True)
            (ROOT / path).write_text(content, encoding="utf-8")
            changed.append(path)
    for path in _left_over(files):
        (ROOT / path).unlink()
        changed.append(path)
    return changed


def _left_over(files: Mapping[str, str]) -> list[str]:
    there = sorted(f"{EVENTS}/{file.name}" for file in (ROOT / EVENTS).glob("*"))
    return [path for path in there if path not in files]


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def _json(document: dict[str, object]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _filled(path: str, parts: Mapping[str, Callable[[], str]]) -> str:
    """Return the file's text with the content between the markers of each part generated anew."""
    text = (ROOT / path).read_text(encoding="utf-8")
    for name, make in parts.items():
        start, end = f"<!-- generated: {name} -->", f"<!-- end: {name} -->"
        before, found, rest = text.partition(start)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise ValueError(f"{path} needs the markers {start} and {end}")
        text = f"{before}{start}\n{make()}\n{end}{after}"
    return text


def _subscribing() -> dict[str, Callable[[], str]]:
    return {
        "topics": _topics,
        "subscriber.py": lambda: _example("subscriber.py", "python"),
        "subscriber.mjs": lambda: _example("subscriber.mjs", "js"),
    }


def _example(name: str, language: str) -> str:
    return f"```{language}\n{(ROOT / 'examples' / name).read_text(encoding='utf-8')}```"


def _events() -> dict[str, str]:
    """Return a JSON Schema for every event, an AsyncAPI document for all topics, and a page that lists them."""
    return {
        **{f"{EVENTS}/{event.TYPE}.json": _json(event_schema(event)) for topic in TOPICS for event in topic.events},
        f"{EVENTS}/asyncapi.json": _json(system_document(version("groundswell"))),
        f"{EVENTS}/README.md": _index_of_events(),
    }


def event_schema(event: type[Event]) -> dict[str, object]:
    """Return the JSON Schema of an event's value, which is a guarantee for subscribers.

    A field with a default is not required: records from before it was added lack it.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:groundswell:event:{event.TYPE}",
        **event.model_json_schema(),
    }


def _index_of_events() -> str:
    rows = []
    for topic in TOPICS:
        for event in topic.events:
            says = inspect.cleandoc(event.__doc__ or "").partition("\n\n")[0].replace("\n", " ")
            rows.append(f"| [`{event.TYPE}`]({event.TYPE}.json) | `{topic.name}` | {says} |")
    return (
        "# Events\n\n"
        "What is on Groundswell's topics. Each event has a JSON Schema (draft 2020-12) of its value, named like its"
        " `ce_type`; [asyncapi.json](asyncapi.json) is one AsyncAPI 3 document of all topics, with keys and headers. All"
        " files here are made from the code by `groundswell generated`. [Subscribing](../subscribing.md) says how to read"
        " them, and what may change.\n\n"
        "| `ce_type` and schema | topic | says |\n|---|---|---|\n" + "\n".join(rows) + "\n"
    )


def _capacity() -> dict[str, Callable[[], str]]:
    costs = read_costs()
    return {"capacity": lambda: page_tables(costs), "costs": lambda: page_costs(costs)}


def _performance() -> dict[str, Callable[[], str]]:
    results = performance.read_results()
    return {
        "short": lambda: performance.short(results),
        "machine": lambda: performance.machine(results),
        "goals": lambda: performance.goals(results),
        "plots": performance.plots,
        "others": lambda: performance.others(results),
    }


def _decisions() -> str:
    """Return the index of docs/adr from each page's heading (``# 7. Title``) and status line (``**Status:** accepted``)."""
    rows = []
    for page in sorted((ROOT / "docs" / "adr").glob("[0-9]*.md")):
        heading, _, status, *_ = page.read_text(encoding="utf-8").splitlines()
        number, _, title = heading.removeprefix("# ").partition(". ")
        rows.append(f"| [{number}]({page.name}) | {title} | {status.removeprefix('**Status:** ')} |")
    return "| number | decision | status |\n|---|---|---|\n" + "\n".join(rows)


def _reason_codes() -> str:
    rows = "\n".join(f"| `{reason.value}` | {meaning} |" for reason, meaning in REASONS.items())
    return (
        "# Reason codes\n\n"
        "Why a submission does not count: the `reason` of events on `signatures.rejected.v1` and of"
        " `GET /v1/signatures/{signature_id}`. ingest tells a signer at once (422, the same code at the field) what the form"
        f" and the petition alone decide: {', '.join(f'`{code}`' for code in sorted(CODES))}. Such a signature is on the topic"
        " only if the petition changed in between, or if it did not come through ingest. Made from the code by"
        " `groundswell generated`.\n\n"
        f"| code | meaning |\n|---|---|\n{rows}\n"
    )


def _topics() -> str:
    rows = []
    for topic in all_topics():
        kept = "compacted" if topic.retention is None else f"{topic.retention.days} days"
        rows.append(f"| `{topic.name}` | {topic.key} | {topic.holds} | {kept} |")
    return "| topic | key | holds | kept |\n|---|---|---|---|\n" + "\n".join(rows)


def _settings() -> str:
    users: dict[str, list[str]] = {}
    rows: dict[str, str] = {}
    for service in SERVICES:
        settings = settings_of(service)
        for field, info in settings.model_fields.items():
            name = environment_name(settings, field)
            users.setdefault(name, []).append(service)
            rows[name] = f"{_default(info)} | {info.description or ''}{_bounds(info)}"
    lines = []
    for name in sorted(rows, key=lambda name: (-len(users[name]), name)):
        who = "all" if len(users[name]) == len(SERVICES) else ", ".join(users[name])
        lines.append(f"| `{name}` | {who} | {rows[name]} |")
    return "| variable | read by | default | meaning |\n|---|---|---|---|\n" + "\n".join(lines)


def _default(info: FieldInfo) -> str:
    if info.default is PydanticUndefined:
        return "required" if info.default_factory is None else "(empty)"
    value = info.default.get_secret_value() if isinstance(info.default, SecretStr) else info.default
    return f"`{str(value).lower() if isinstance(value, bool) else value}`" if value not in (None, "") else "(empty)"


def _bounds(info: FieldInfo) -> str:
    words = []
    for rule in info.metadata:
        if isinstance(rule, Ge):
            words.append(f"at least {rule.ge}")
        elif isinstance(rule, Gt):
            words.append(f"above {rule.gt}")
        elif isinstance(rule, Le):
            words.append(f"at most {rule.le}")
        elif isinstance(rule, Lt):
            words.append(f"below {rule.lt}")
    return f" ({', '.join(words)})" if words else ""
