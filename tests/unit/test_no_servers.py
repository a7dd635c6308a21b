"""Unit tests run on a machine that has Python and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

UNIT = Path(__file__).parent
SERVERS = {"kafka", "valkey", "postgres", "mailbox", "running_stack", "system"}
"""Fixtures of tests/conftest.py that start a server."""


def test_no_unit_test_asks_for_a_server(request: pytest.FixtureRequest) -> None:
    items = [item for item in request.session.items if item.path.is_relative_to(UNIT)]
    assert request.node in items
    assert [item.nodeid for item in items if SERVERS & set(getattr(item, "fixturenames", ()))] == []
