"""`groundswell capacity`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from deploy.capacity.compute import capacity
from deploy.capacity.costs import COSTS_FILE, CostsError, read_costs
from deploy.capacity.demand import Demand
from deploy.capacity.show import show


def run(*, costs: Path | None, as_json: bool, **demand: Any) -> None:
    """Compute and print.

    Args:
        costs: the file of measured costs; None: the one in the source tree.
        demand: the fields of `Demand`.

    Raises:
        typer.BadParameter: a number is out of range, or the file of costs is missing or invalid.
    """
    try:
        measured = read_costs(costs or COSTS_FILE)
        answer = capacity(Demand(**demand), measured)
    except CostsError as error:
        raise typer.BadParameter(str(error)) from None
    except ValueError as error:
        field, _, rule = str(error).partition(" ")
        raise typer.BadParameter(f"--{field.replace('_', '-')} {rule}") from None
    if as_json:
        typer.echo(json.dumps(answer.as_json()))
    else:
        show(answer, measured, Console())
