"""The application: addresses, and what goes wrong as a page of one line."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from functools import cache, partial, wraps
from http import HTTPStatus
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qs

from fastapi import FastAPI, Query, Request
from fastapi import Path as PathPart
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from pydantic import Field
from starlette.exceptions import HTTPException

from db.archive import Archive
from db.errors import ArchiveError
from db.filters import FilterError
from db.redact import redact_secrets
from discovery.browse.comparison import MOST
from discovery.cli.border import message_of, say_error
from discovery.exporters.base import ExportError
from discovery.json_values import plain
from discovery.web import candidate, candidates, compare, family, overview, pareto
from discovery.web.exports import Exports
from discovery.web.rendering import page, shown_values
from discovery.web.security import LOGIN, Access, Guard
from discovery.web.turns import Turns
from evaluators.options import OptionsError
from sandbox.failure import CandidateError, InfrastructureError, PluginError
from sandbox.text import one_line

_STATIC = Path(__file__).with_name("static")
_TYPED = 4_096  # bytes of the login form
_STYLE_ID = re.compile(r'getElementById\("([0-9a-f]{64})"\)')
_FOREVER = "public, max-age=31536000, immutable"  # the address holds the version
_STATUS: dict[type[Exception], HTTPStatus] = {  # the most particular first
    FilterError: HTTPStatus.BAD_REQUEST,
    OptionsError: HTTPStatus.BAD_REQUEST,
    ArchiveError: HTTPStatus.NOT_FOUND,
    ExportError: HTTPStatus.UNPROCESSABLE_ENTITY,
    CandidateError: HTTPStatus.UNPROCESSABLE_ENTITY,
    InfrastructureError: HTTPStatus.SERVICE_UNAVAILABLE,
    PluginError: HTTPStatus.INTERNAL_SERVER_ERROR,
}
_PAGES, _EXPORTS = 20, 1  # requests answered at once: fewer than there are threads; an export runs the loss
Name = Annotated[str, Query(max_length=300)]
Campaign = Annotated[str | None, Query(max_length=300)]
Ids = Annotated[list[Annotated[str, Field(max_length=64)]], Query(alias="id", max_length=MOST)]
Prefix = Annotated[str, PathPart(max_length=64)]


def create_app(archive: Archive, access: Access) -> FastAPI:
    """All pages of one open archive. Each request reads in a thread of its own."""
    app = FastAPI(title="objective-discovery", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guard, access=access)
    app.mount("/static", StaticFiles(directory=_STATIC))
    _add_errors(app, archive)
    _add_login(app, access)
    _add_plotly(app)
    _add_pages(app, archive)
    return app


def _html(archive: Archive, template: str, values: dict[str, Any], status: int = 200) -> HTMLResponse:
    common = {
        "archive": archive.url,
        "version": version("objective-discovery"),
        "plotly": version("plotly"),
        "style_ids": _style_ids(),
    }
    return HTMLResponse(page(template, common | values), status)


def _in_turn(turns: Turns, answer: Callable[..., Response]) -> Callable[..., Awaitable[Response]]:
    """The same answer, given in a turn; its parameters are seen through it."""

    @wraps(answer)
    async def given(**parameters: Any) -> Response:
        found: Response = await turns.take(partial(answer, **parameters))
        return found

    return given


def _add_pages(app: FastAPI, archive: Archive) -> None:
    exports, turns, export_turns = Exports(archive), Turns(_PAGES), Turns(_EXPORTS)

    def campaigns() -> Response:
        return _html(archive, "campaigns.html", overview.campaigns(archive))

    def one_campaign(name: Name) -> Response:
        return _html(archive, "campaign.html", overview.campaign(archive, name))

    def live(name: Name) -> Response:
        return JSONResponse(shown_values(plain(overview.live(archive, name))))

    def listing(wanted: Annotated[candidates.Wanted, Query()]) -> Response:
        try:
            return _html(archive, "candidates.html", candidates.listing(archive, wanted))
        except (FilterError, OptionsError) as error:
            said = one_line(redact_secrets(str(error)), 1000)
            values = candidates.refused(archive, wanted, said)
            return _html(archive, "candidates.html", values, HTTPStatus.BAD_REQUEST)

    def one_candidate(prefix: Prefix, campaign: Campaign = None) -> Response:
        return _html(archive, "candidate.html", candidate.candidate(archive, prefix, campaign or None))

    def export(prefix: Prefix, name: Annotated[str, PathPart(max_length=100)], campaign: Campaign = None) -> Response:
        made = exports.export(prefix, name, campaign or None)
        headers = {"Content-Disposition": f'attachment; filename="{made.file_name}"'}
        return Response(made.content, media_type=made.media_type, headers=headers)

    def lineage(prefix: Prefix, campaign: Campaign = None) -> Response:
        return _html(archive, "lineage.html", family.lineage(archive, prefix, campaign or None))

    def side_by_side(ids: Ids = [], campaign: Campaign = None) -> Response:  # noqa: B006
        return _html(archive, "compare.html", compare.compared(archive, ids, campaign or None))

    def metrics(campaign: Name, x: Campaign = None, y: Campaign = None) -> Response:
        return _html(archive, "pareto.html", pareto.plot(archive, campaign, x or None, y or None))

    pages: dict[str, Callable[..., Response]] = {
        "/": campaigns,
        "/campaign": one_campaign,
        "/campaign/live": live,
        "/candidates": listing,
        "/candidate/{prefix}": one_candidate,
        "/candidate/{prefix}/lineage": lineage,
        "/compare": side_by_side,
        "/pareto": metrics,
    }
    for path, answer in pages.items():
        app.get(path)(_in_turn(turns, answer))
    app.get("/candidate/{prefix}/export/{name}")(_in_turn(export_turns, export))


@cache
def _plotly() -> Path:
    """The charts' script, as the plotly package brings it."""
    return Path(str(files("plotly") / "package_data" / "plotly.min.js"))


@cache
def _style_ids() -> tuple[str, ...]:
    """Ids of style elements that the script adds where nothing has them: our policy forbids it, and no chart needs them."""
    return tuple(sorted(set(_STYLE_ID.findall(_plotly().read_text(encoding="utf-8")))))


def _add_plotly(app: FastAPI) -> None:

    @app.get("/plotly-{number}.js")
    def plotly(number: str) -> Response:
        if number != version("plotly"):
            raise HTTPException(HTTPStatus.NOT_FOUND)
        return FileResponse(_plotly(), media_type="text/javascript", headers={"Cache-Control": _FOREVER})


def _add_login(app: FastAPI, access: Access) -> None:
    @app.get(LOGIN)
    def login() -> Response:
        return HTMLResponse(page("login.html", {"wrong": False}))

    @app.post(LOGIN)
    async def log_in(request: Request) -> Response:
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > _TYPED:
                return HTMLResponse(page("login.html", {"wrong": True}), HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        typed = parse_qs(body.decode("ascii", "replace")).get("token", [""])[0]
        if not access.opens(typed):
            return HTMLResponse(page("login.html", {"wrong": True}), HTTPStatus.FORBIDDEN)
        answer = RedirectResponse("/", HTTPStatus.SEE_OTHER)
        answer.set_cookie(access.cookie, access.session, httponly=True, samesite="strict")
        return answer


def _add_errors(app: FastAPI, archive: Archive) -> None:
    def said(message: str, status: int) -> Response:
        values = {"message": one_line(redact_secrets(message), 1000), "status": int(status)}
        return _html(archive, "error.html", values, int(status))

    def expected(_: Request, error: Exception) -> Response:
        status = next(s for kind, s in _STATUS.items() if isinstance(error, kind))
        return said(message_of(error), HTTPStatus.SERVICE_UNAVAILABLE if getattr(error, "fault", False) else status)

    def unexpected(_: Request, error: Exception) -> Response:
        say_error(f"{type(error).__name__}: {error}", prefix="unexpected fault: ")
        return said("This page failed; the terminal of the dashboard says why.", HTTPStatus.INTERNAL_SERVER_ERROR)

    def of_http(_: Request, error: HTTPException) -> Response:
        return said(
            "There is no such page." if error.status_code == HTTPStatus.NOT_FOUND else error.detail, error.status_code
        )

    def malformed(_: Request, error: Any) -> Response:
        where = ", ".join(f"{e['loc'][-1]}: {e['msg']}" for e in error.errors())
        return said(f"The address is not complete or not right: {where}", HTTPStatus.BAD_REQUEST)

    from fastapi.exceptions import RequestValidationError

    for kind in _STATUS:
        app.add_exception_handler(kind, expected)
    app.add_exception_handler(HTTPException, of_http)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, malformed)
    app.add_exception_handler(Exception, unexpected)
