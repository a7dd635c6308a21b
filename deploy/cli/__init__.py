"""The `groundswell` command: one module for a group of commands. What a command does is imported when it is called, so
that `groundswell --help` is there at once, and a command of an operator needs nothing of the local stack."""

import typer

from deploy.cli import administration, capacity, checkout, counts, deliveries, local, prepare

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def groundswell() -> None:
    """Groundswell: petition signatures in, a live count that can be proved out."""


for group in (local, prepare, counts, administration, deliveries, capacity, checkout):
    app.add_typer(group.app)


def main() -> None:
    """Run the command."""
    app()
