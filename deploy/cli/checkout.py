"""Commands that need a checkout of the source: `faults`, `bench` and `generated`."""

import os
import subprocess
import sys
from typing import Annotated

import typer

from deploy.cli.needs import need_checkout, need_local_stack
from deploy.cli.options import CHECKOUT
from deploy.local import PROJECT_ROOT

app = typer.Typer()

_PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


@app.command(rich_help_panel=CHECKOUT, context_settings=_PASSED_ON)
def faults(context: typer.Context) -> None:
    """Run surges through the whole system under injected faults, and check that nothing is lost or counted twice.

    `groundswell faults --help` lists the options. Needs a checkout of the source: the harness is part of the tests.
    """
    raise typer.Exit(_run("tests.faults", context.args))


@app.command(rich_help_panel=CHECKOUT, context_settings=_PASSED_ON)
def bench(context: typer.Context) -> None:
    """Benchmark the whole system on real parts, compared with its floors and its peers (docs/performance.md).

    `groundswell bench --help` lists scenarios and options. Needs a checkout of the source; run `make bench` once to
    install its tools.
    """
    raise typer.Exit(_run("tests.bench", context.args))


def _run(module: str, arguments: list[str]) -> int:
    """Run a module that only a checkout has. Returns its exit code."""
    need_checkout(module.replace(".", "/"))
    need_local_stack()
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(  # noqa: S603  our own module, the caller's own arguments
        command, env={**os.environ, "PYTHONPATH": str(PROJECT_ROOT)}, check=False
    ).returncode


@app.command(rich_help_panel=CHECKOUT)
def generated(
    check_only: Annotated[bool, typer.Option("--check", help="Write nothing; exit code 1 if a file is stale.")] = False,
) -> None:
    """Write the generated files: OpenAPI documents, event schemas, reason codes, tables and pictures in docs/."""
    need_checkout("docs")
    from deploy import generated as files

    found = files.stale() if check_only else files.write()
    for path in found:
        typer.echo(f"{path}: {'stale; run `groundswell generated`' if check_only else 'written'}")
    raise typer.Exit(1 if check_only and found else 0)
