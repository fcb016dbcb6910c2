"""The API for people: the OpenAPI document in a browser, from files inside the program.

The page asks nothing of other machines and says so in its content policy. Its files lie in
``api/static``; those of the viewer, Swagger UI, are fetched by ``build/vendor.py``.
"""

from __future__ import annotations

import gzip
import hashlib
from functools import cache
from importlib.resources import files
from typing import Final

import msgspec
from litestar import Controller, Response, get
from litestar.params import FromPath

from ocean_core import __version__
from ocean_core.api.services import AnyRequest, path_text
from ocean_core.model.errors import RouteError

PAGE: Final = "/api/ocean/docs/ui"
"""Where the page is. Its files lie one step below, and it names them relative to itself."""

# Litestar adds the charset, UTF-8, to all of these.
_TEXT: Final = "text/plain"
_SCRIPT: Final = "text/javascript"
_STYLE: Final = "text/css"
_INDEX: Final = "index.html"

ASSETS: Final = {
    "boot.js": ("boot.js", _SCRIPT),
    "colours.js": ("colours.js", _SCRIPT),
    "icon.svg": ("icon.svg", "image/svg+xml"),
    "ocean.css": ("ocean.css", _STYLE),
    "swagger-ui-bundle.js": ("swagger-ui/swagger-ui-bundle.js.gz", _SCRIPT),
    "swagger-ui-bundle.js.LICENSE.txt": ("swagger-ui/swagger-ui-bundle.js.LICENSE.txt", _TEXT),
    "swagger-ui.css": ("swagger-ui/swagger-ui.css.gz", _STYLE),
    "LICENSE": ("swagger-ui/LICENSE", _TEXT),
    "NOTICE": ("swagger-ui/NOTICE", _TEXT),
}
"""Everything that is served below the page: name, file in ``api/static``, media type."""

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; font-src 'self'; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'none'"
)
"""What the page may do. ``api.front`` adds the other headers that keep browsers in bounds."""

_GUARDED: Final = {"Content-Security-Policy": POLICY}


class Content(msgspec.Struct, frozen=True):
    """A file as it is sent: its bytes, the name of this version, the encoding if there is one."""

    body: bytes
    etag: str
    encoding: str = ""


class Home(msgspec.Struct):
    """Where a program that asked for ``/`` finds more."""

    system: str
    docs: str
    openapi: str
    viewer: str


@cache
def load(path: str, *, plain: bool) -> Content:
    """Return a file of ``api/static``, read once.

    One that is stored compressed is sent so, unless the client wants it ``plain``.
    """
    body = files("ocean_core.api").joinpath("static", path).read_bytes()
    encoding = "gzip" if path.endswith(".gz") else ""
    if encoding and plain:
        body, encoding = gzip.decompress(body), ""
    # Both forms have names of their own, because the bytes differ.
    return Content(body, f'"{hashlib.sha256(body).hexdigest()[:32]}"', encoding)


def takes_gzip(accept_encoding: str) -> bool:
    """Return whether a client takes gzip: it says so, and not with a weight of zero."""
    weights: dict[str, bool] = {}
    for part in accept_encoding.lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        weights[name] = not any(
            parameter.startswith("q=") and not parameter[2:].strip("0.") for parameter in parameters
        )
    return weights.get("gzip", weights.get("x-gzip", weights.get("*", False)))


def has_version(if_none_match: str, etag: str) -> bool:
    """Return whether a client holds this version already."""
    held = {part.strip().removeprefix("W/") for part in if_none_match.split(",")}
    return etag in held or "*" in held


def _file_answer(request: AnyRequest, path: str, media_type: str) -> Response[bytes]:
    plain = not takes_gzip(request.headers.get("accept-encoding", ""))
    content = load(path, plain=plain)
    # no-cache: kept, but asked for again, so that an update of the box shows at once.
    headers = {
        **_GUARDED,
        "Cache-Control": "no-cache",
        "ETag": content.etag,
        "Vary": "Accept-Encoding",
    }
    if has_version(request.headers.get("if-none-match", ""), content.etag):
        return Response(b"", status_code=304, media_type=media_type, headers=headers)
    if content.encoding:
        headers["Content-Encoding"] = content.encoding
    return Response(content.body, media_type=media_type, headers=headers)


class ViewerController(Controller):
    """Pages for people; the OpenAPI document does not list them."""

    include_in_schema = False

    @get("/", opt={"access": "public"})
    async def home(self, request: AnyRequest) -> Response[bytes]:
        """Send browsers to the page, and tell programs where the descriptions are."""
        if "text/html" in request.headers.get("accept", ""):
            # Relative, so that it holds for every name of the box and behind every tunnel.
            headers = {**_GUARDED, "Location": PAGE.lstrip("/"), "Vary": "Accept"}
            return Response(b"", status_code=303, media_type="text/html", headers=headers)
        body = Home(
            system=f"Clisonix Ocean Core {__version__}",
            docs="/api/ocean/docs",
            openapi="/api/ocean/openapi.json",
            viewer=PAGE,
        )
        return Response(
            msgspec.json.encode(body),
            media_type="application/json",
            headers={"Cache-Control": "no-store", "Vary": "Accept"},
        )

    @get(PAGE, opt={"access": "public"})
    async def page(self, request: AnyRequest) -> Response[bytes]:
        """Return the page."""
        if request.scope["raw_path"].endswith(b"/"):
            # The addresses in the page are relative to the one without it.
            headers = {**_GUARDED, "Location": "../ui"}
            return Response(b"", status_code=308, media_type="text/html", headers=headers)
        return _file_answer(request, _INDEX, "text/html")

    @get(PAGE + "/{name:str}", opt={"access": "public"})
    async def asset(self, request: AnyRequest, name: FromPath[str]) -> Response[bytes]:
        """Return a file of the page; only names in the table exist."""
        known = ASSETS.get(name)
        if known is None:
            raise RouteError(f"there is no file {path_text(name)[:80]!r}")
        return _file_answer(request, *known)
