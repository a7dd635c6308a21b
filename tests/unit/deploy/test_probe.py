"""The containers' health probe."""

import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from deploy.probe import main, probe

NOT_READY = b'{"status": "not ready", "checks": {"kafka": "away"}}'


class Service(BaseHTTPRequestHandler):
    """Alive, but not ready."""

    def do_GET(self) -> None:
        alive = self.path == "/livez"
        self.send_response(200 if alive else 503)
        self.end_headers()
        self.wfile.write(b"alive" if alive else NOT_READY)

    def log_message(self, format: str, *args: object) -> None:
        """Stay quiet."""


@pytest.fixture
def port() -> Iterator[int]:
    server = HTTPServer(("127.0.0.1", 0), Service)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_service_that_answers_is_well(
    port: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("INGEST_PORT", str(port))
    assert main(["INGEST_PORT", "/livez"]) == 0
    assert capsys.readouterr().out == "200 alive\n"


def test_a_service_that_is_not_ready_says_which_dependency_is_away(
    port: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("INGEST_PORT", str(port))
    assert main(["INGEST_PORT", "/readyz"]) == 1
    assert '"kafka": "away"' in capsys.readouterr().out


def test_a_proxy_in_the_environment_is_not_asked(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert probe(port, "/livez")[0]


def test_a_service_that_does_not_listen_is_not_well(monkeypatch: pytest.MonkeyPatch) -> None:
    with HTTPServer(("127.0.0.1", 0), Service) as closed:
        nobody = closed.server_port
    well, answer = probe(nobody, "/livez")
    assert not well
    assert str(nobody) in answer


@pytest.mark.parametrize("value", ["", "http", "-1"])
def test_a_port_that_is_none_is_named(
    value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("INGEST_PORT", value)
    assert main(["INGEST_PORT", "/livez"]) == 1
    assert "INGEST_PORT" in capsys.readouterr().err


def test_it_runs_as_docker_runs_it(port: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "deploy.probe", "TALLY_PORT", "/livez"],
        env={"TALLY_PORT": str(port)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "200 alive\n"), done.stderr
    usage = subprocess.run([sys.executable, "-m", "deploy.probe"], capture_output=True, text=True, check=False)
    assert usage.returncode == 1
    assert "usage" in usage.stderr
