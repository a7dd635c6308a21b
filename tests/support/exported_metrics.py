"""A service that is built and not started, and the metrics that it exports."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

import pytest
from prometheus_client import CollectorRegistry

from deploy.operate import settings_of
from shared.service import Service


def put_together(service: str) -> Service:
    """A service as its `app.py` builds it for running."""
    app = import_module(f"services.{service}.app")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("SIGNER_PEPPER", "ADMIN_TOKEN"):
            patch.setenv(name, "f" * 64)
        patch.setenv("PUBLIC_PAGES_URL", "https://pages.example")
        patch.setenv("SMTP_URL", "smtp://127.0.0.1:25")
        built: Service = app.build(settings_of(service)())
    return built


def registry_of(service: str) -> CollectorRegistry:
    """The metrics of a service, built as for running."""
    return put_together(service).base.registry


def metrics_of(service: str) -> Iterator[tuple[str, set[str]]]:
    """Every sample name that a service has in its registry, and its labels."""
    yield from _collected(registry_of(service))


def _collected(registry: CollectorRegistry) -> Iterator[tuple[str, set[str]]]:
    # A metric with labels shows no sample before its first event; the registry knows its names all the same.
    for collector in list(registry._collector_to_names):
        names = registry._collector_to_names[collector]
        labels = set(getattr(collector, "_labelnames", ()))
        for name in names:
            yield name, labels | ({"le"} if name.endswith("_bucket") else set())
    for family in registry.collect():  # collectors that register no names beforehand: of the process and of Python
        for sample in family.samples:
            yield sample.name, set(sample.labels)
