"""The `groundswell` command, with one module per group of commands. A command imports its implementation when it is called,
so that `groundswell --help` is fast and operators' commands do not need the packages of the local stack."""

import typer

from deploy.cli import administration, capacity, checkout, counts, deliveries, local, prepare

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def groundswell() -> None:
    """Groundswell: accepts petition signatures and keeps a live count that can be proved."""


for group in (local, prepare, counts, administration, deliveries, capacity, checkout):
    app.add_typer(group.app)


def main() -> None:
    """Run the command."""
    app()
