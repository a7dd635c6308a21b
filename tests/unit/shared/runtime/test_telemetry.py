"""Logs: one event a line, the same form for all libraries, and no user input in a traceback."""

import json
import logging
import subprocess
import sys
import textwrap
from functools import cache

import pytest

from shared.runtime.telemetry import OncePerWindow

LOGGING = """
    import logging, structlog
    from shared.runtime.settings import CommonSettings
    from shared.runtime.telemetry import configure_logging

    configure_logging(CommonSettings(log_format="{form}", log_level="{level}"), "verify")

    def fails(email):
        raise KeyError("missing")

    structlog.get_logger("shared.example").info("something_happened", records=3)
    logging.getLogger("a.library").warning("it said %s", "so")
    logging.getLogger("aiokafka.cluster").warning("noise")
    try:
        fails("canary@example.org")
    except KeyError as bug:
        structlog.get_logger("shared.example").error("bug", exc_info=bug)
    if {quotes}:
        logging.getLogger("a.library").error("cannot connect to postgresql://planted:planted@db.example/main")
        try:
            raise ValueError("invalid input for argument $1: ['planted+1@mail.example', 'x']")
        except ValueError as bug:
            structlog.get_logger("shared.example").error("bug", exc_info=bug)
    print("nothing of the log goes here")
"""


@cache
def log_lines(form: str, level: str = "info", *, quotes: bool = False) -> list[str]:
    """What a process with these settings writes to standard error."""
    program = textwrap.dedent(LOGGING.format(form=form, level=level, quotes=quotes))
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert ended.stdout == "nothing of the log goes here\n"
    return ended.stderr.splitlines()


def test_json_logs_are_one_object_a_line_with_time_level_service_and_logger() -> None:
    happened, library, bug = [json.loads(line) for line in log_lines("json")]
    assert happened["event"] == "something_happened"
    assert (happened["records"], happened["service"], happened["level"]) == (3, "verify", "info")
    assert happened["logger"] == "shared.example"
    assert happened["timestamp"].endswith("Z")
    assert (library["event"], library["service"], library["level"]) == ("it said so", "verify", "warning")
    assert "KeyError: 'missing'" in bug["exception"]


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_traceback_shows_no_values(form: str) -> None:
    text = "\n".join(log_lines(form))
    assert "KeyError" in text
    assert "fails" in text
    # The traceback has the source line that made the value, as this is a script, but not the local variable's value.
    assert "email = " not in text
    assert text.count("canary") <= 1


@pytest.mark.parametrize("form", ["json", "console"])
def test_addresses_and_passwords_that_a_library_quotes_are_removed(form: str) -> None:
    quoting = log_lines(form, quotes=True)[len(log_lines(form)) :]
    text = "\n".join(quoting)
    assert "cannot connect to postgresql://[removed]/main" in text
    assert "invalid input for argument $1" in text
    assert "planted" not in text


def test_what_is_below_the_level_is_not_logged() -> None:
    assert [json.loads(line)["event"] for line in log_lines("json", "warning")] == ["it said so", "bug"]


class _Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def test_a_library_that_says_the_same_again_and_again_is_heard_once_in_a_while() -> None:
    now = 0.0
    heard = _Heard()
    heard.addFilter(OncePerWindow("chatty", 10.0, clock=lambda: now))
    chatty, other = logging.Logger("chatty.client"), logging.Logger("chattier")
    for logger in (chatty, other):
        logger.addHandler(heard)
    for node in range(500):
        chatty.error("no answer from %d", node)
    chatty.error("something else")
    for _ in range(2):
        other.error("mine")
    assert heard.lines == ["no answer from 0", "something else", "mine", "mine"]
    now = 10.0
    for node in (7, 8):
        chatty.error("no answer from %d", node)
    assert heard.lines[4:] == ["no answer from 7 (and 499 more like it)"]
