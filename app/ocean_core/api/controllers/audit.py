"""The audit log."""

from __future__ import annotations

from litestar import Controller, get
from litestar.types import ASGIApp

from ocean_core.api.answer import answer
from ocean_core.api.openapi import answers, operation, query_parameter
from ocean_core.api.paging import LIMIT, after_parameter, page_limit, query_texts, whole_number
from ocean_core.api.record_schemas import READ_PROBLEMS
from ocean_core.api.services import AnyRequest, services_of
from ocean_core.service.accounts.audit import AuditList

_ACT = query_parameter("act", "Only acts of this kind.", "keys.create")


class AuditController(Controller):
    """Route of /api/ocean/audit."""

    path = "/api/ocean/audit"
    tags = ("Audit",)

    @get(
        opt={"access": "admin"},
        operation_class=operation(LIMIT, after_parameter("1200", "^[0-9]{1,18}$"), _ACT),
        responses=answers(AuditList, *READ_PROBLEMS),
        summary="Administrative acts",
    )
    async def audit(self, request: AnyRequest) -> ASGIApp:
        """Return a page of what was done, by whom and from where, newest first."""
        texts = query_texts(request, "limit", "after", "act")
        after = texts.get("after")
        before = None if after is None else whole_number("after", after)
        page = await services_of(request).audit.page(texts.get("act"), before, page_limit(texts))
        return answer(page)
