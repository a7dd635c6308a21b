"""Shared by several commands: options, and the panels of `groundswell --help`."""

from typing import Annotated, Final

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print one line of JSON.")]

LOCAL: Final = "The local stack"
OPERATION: Final = "Operation"
CHECKOUT: Final = "In a checkout of the source"
