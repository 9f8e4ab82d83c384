"""Commands that connect an installation with somebody else's service, and say what works there."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from forecastle.cli.options import AsJson, moment, print_json, working

app = typer.Typer(
    help="Connect with a service, and try what works there.",
    epilog="Example: forecastle connect dagshub alice/weather",
    no_args_is_help=True,
)


@app.callback()
def connect() -> None:
    """Connect with a service, and try what works there."""


@app.command(epilog="Example: forecastle connect dagshub alice/weather")
def dagshub(
    repository: Annotated[str, typer.Argument(help="OWNER/REPO at DagsHub.", show_default=False)],
    user: Annotated[str | None, typer.Option(help="Whose token it is; default: the owner's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Use a DagsHub repository's git, DVC storage and MLflow; the token is read from FORECASTLE_DAGSHUB_TOKEN."""
    from forecastle.console.connecting import print_finding
    from forecastle.delivery.dagshub import connect
    from forecastle.http import Client
    from forecastle.settings import load_settings

    given: dict[str, Any] = {"dagshub": repository} | ({} if user is None else {"dagshub_user": user})
    settings, failed = load_settings(**given), None
    with Client(settings) as client, working("Trying git, DVC and MLflow…"):
        for finding in connect(settings, client, moment(None)):
            if as_json:
                print_json(finding.as_dict())
            else:
                print_finding(finding.what, finding.said, finding.address, finding.works, finding.lacks)
            failed = failed or finding.error
    if failed is not None:
        raise failed
