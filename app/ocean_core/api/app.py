"""The Litestar application: routes, guard, errors, OpenAPI."""

from __future__ import annotations

from typing import Final

from litestar import Litestar, Router
from litestar.config.response_cache import ResponseCacheConfig
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.routes import BaseRoute
from litestar.types import ControllerRouterHandler

from ocean_core import __version__
from ocean_core.api.access import require_access
from ocean_core.api.controllers.analytics import AnalyticsController, SensorsController
from ocean_core.api.controllers.audit import AuditController
from ocean_core.api.controllers.billing import BillingController
from ocean_core.api.controllers.groups import GroupsController
from ocean_core.api.controllers.ingest import IngestController
from ocean_core.api.controllers.jobs import JobsController
from ocean_core.api.controllers.keys import KeysController
from ocean_core.api.controllers.metadata import MetadataController
from ocean_core.api.controllers.profiles import ProfilesController
from ocean_core.api.controllers.quarantine import QuarantineController
from ocean_core.api.controllers.sensor_records import SensorRecordsController
from ocean_core.api.controllers.sessions import SessionsController
from ocean_core.api.controllers.state import StateController
from ocean_core.api.controllers.users import UsersController
from ocean_core.api.controllers.verify import VerifyController
from ocean_core.api.controllers.viewer import ViewerController
from ocean_core.api.openapi import declare_access
from ocean_core.api.problems import ErrorHandlers
from ocean_core.api.services import Services
from ocean_core.model.errors import OceanError

ROUTE_HANDLERS: Final = (
    IngestController,
    GroupsController,
    AnalyticsController,
    SensorsController,
    SensorRecordsController,
    VerifyController,
    QuarantineController,
    UsersController,
    BillingController,
    SessionsController,
    MetadataController,
    ProfilesController,
    KeysController,
    AuditController,
    JobsController,
    StateController,
    ViewerController,
)
declare_access(ROUTE_HANDLERS)

INTRODUCTION: Final = """\
Takes readings of sensors, keeps them safe on this box, and answers questions about them. The usual
way in: **POST /api/ocean/telemetry/ingest** stores a reading, **GET /api/ocean/sensors** shows who
has sent something, and the section Analytics asks about it.

On the box itself no key is needed (unless `access.trust_loopback` is false). From anywhere else,
press **Authorize** and paste a key; `ocean keys create` on the box makes one. Then open a request,
press *Try it out*, and *Execute*.

Every refusal is a problem document: `detail` says what happened, `hint` what to do next, `code`
stays the same for ever.
"""
"""What the description of the API, and so the page that shows it, begins with."""


class _DocumentRouter(Router):
    """The address of the OpenAPI document, without the pages that Litestar adds below it."""

    def register(self, value: ControllerRouterHandler) -> list[BaseRoute]:
        if isinstance(value, HTTPRouteHandler) and value.paths != {"/"}:
            return []
        return super().register(value)


def create_app(services: Services) -> Litestar:
    """Return the application for these services."""
    handlers = ErrorHandlers(services.log, services.metrics)
    return Litestar(
        route_handlers=ROUTE_HANDLERS,
        state=State({"services": services}),
        exception_handlers={
            OceanError: handlers.ocean,
            HTTPException: handlers.http,
            Exception: handlers.unexpected,
        },
        before_request=require_access,
        # A route that forgets to say whom it lets in lets in administrators only.
        opt={"access": "admin"},
        openapi_config=OpenAPIConfig(
            title="Clisonix Ocean Core",
            version=__version__,
            description=INTRODUCTION,
            path="/api/ocean/openapi.json",
            openapi_router=_DocumentRouter(
                "/api/ocean/openapi.json",
                route_handlers=[],
                include_in_schema=False,
                opt={"access": "public"},
            ),
            components=Components(
                security_schemes={
                    "bearer": SecurityScheme(
                        type="http",
                        scheme="bearer",
                        description="An access key or the token of a session. Programs on the box "
                        "itself need none, unless access.trust_loopback is false.",
                    )
                }
            ),
            render_plugins=[JsonRenderPlugin(path="/")],
        ),
        # Bodies are limited by api.body, which also counts chunked ones and answers in our words.
        request_max_body_size=None,
        response_cache_config=ResponseCacheConfig(default_expiration=None),
        # Our log events are the only log.
        logging_config=None,
        debug=False,
    )
