"""The HTTP side: a page for people, JSON for tests and the demo."""

import json
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.templating import Jinja2Templates

from deploy.local.mailbox.smtp import Refusals
from deploy.local.mailbox.store import Mail, MailboxStore

# A mail's HTML is untrusted: no scripts, no requests, and (sandbox) no access to this page.
_MAIL_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox"


def mailbox_pages(*, store: MailboxStore, refusals: Refusals) -> Starlette:
    """Return the ASGI application.

    `GET /` list for people · `GET /messages` list as JSON, `?to=` for one recipient · `GET /messages/{id}` one mail for
    people · `GET /messages/{id}/html` its HTML part alone · `DELETE /messages` empties the mailbox · `GET`/`PUT
    /refusals` the replies to recipients, a JSON object of address → "451 try later".
    """
    templates = Jinja2Templates(directory=Path(__file__).parent / "templates")

    def found(request: Request) -> Mail:
        mail = store.get(request.path_params["mail_id"])
        if mail is None:
            raise HTTPException(404, "no such mail")
        return mail

    async def index(request: Request) -> Response:
        return templates.TemplateResponse(request, "index.html", {"mails": list(reversed(store.mails))})

    async def messages(request: Request) -> Response:
        to = request.query_params.get("to")
        chosen = [mail for mail in store.mails if to is None or to in mail.rcpt_to]
        return JSONResponse([mail.model_dump() for mail in chosen])

    async def clear(_: Request) -> Response:
        return JSONResponse({"removed": store.clear()})

    async def message(request: Request) -> Response:
        return templates.TemplateResponse(request, "message.html", {"mail": found(request)})

    async def message_html(request: Request) -> Response:
        return HTMLResponse(found(request).html, headers={"Content-Security-Policy": _MAIL_POLICY})

    async def show_refusals(_: Request) -> Response:
        return JSONResponse(dict(refusals.replies))

    async def set_refusals(request: Request) -> Response:
        try:
            replies = {str(address): str(reply) for address, reply in (await request.json()).items()}
            refusals.replace(replies)
        except (json.JSONDecodeError, AttributeError, ValueError) as error:
            raise HTTPException(422, str(error)) from error
        return JSONResponse(dict(refusals.replies))

    return Starlette(
        routes=[
            Route("/", index),
            Route("/messages", messages),
            Route("/messages", clear, methods=["DELETE"]),
            Route("/messages/{mail_id:int}", message),
            Route("/messages/{mail_id:int}/html", message_html),
            Route("/refusals", show_refusals),
            Route("/refusals", set_refusals, methods=["PUT"]),
        ]
    )
