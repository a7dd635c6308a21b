"""Commands that only a checkout of the source has: `faults`, `bench` and `generated`."""

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
    """Surges through the whole system while everything under it is made to fail: nothing lost, nothing counted twice.

    `groundswell faults --help` names the options. Needs a checkout of the source: the harness is part of the tests.
    """
    raise typer.Exit(_run("tests.faults", context.args))


@app.command(rich_help_panel=CHECKOUT, context_settings=_PASSED_ON)
def bench(context: typer.Context) -> None:
    """Measure the whole system against its floors and against what would be built instead, on real parts.

    `groundswell bench --help` names scenarios and options. Needs a checkout of the source, and `make bench` once for
    what it measures with.
    """
    raise typer.Exit(_run("tests.bench", context.args))


def _run(module: str, arguments: list[str]) -> int:
    """Run a module that no installation has; return its exit code."""
    need_checkout(module.replace(".", "/"))
    need_local_stack()
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(  # noqa: S603  our own module, the caller's own arguments
        command, env={**os.environ, "PYTHONPATH": str(PROJECT_ROOT)}, check=False
    ).returncode


@app.command(rich_help_panel=CHECKOUT)
def generated(
    check_only: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit code 1 when a file is stale.")
    ] = False,
) -> None:
    """Make the generated files: OpenAPI documents, event schemas, reason codes, tables and pictures in docs/."""
    need_checkout("docs")
    from deploy import generated as files

    found = files.stale() if check_only else files.write()
    for path in found:
        typer.echo(f"{path}: {'stale; run `groundswell generated`' if check_only else 'written'}")
    raise typer.Exit(1 if check_only and found else 0)
