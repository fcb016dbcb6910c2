"""The routes that the application really has."""

from litestar import Litestar

from ocean_core.api.app import ROUTE_HANDLERS
from ocean_core.api.controllers.state import described_routes


def declared_routes() -> list[str]:
    """Return every route as ``METHOD /path``, sorted."""
    return described_routes(Litestar(route_handlers=ROUTE_HANDLERS, openapi_config=None))
