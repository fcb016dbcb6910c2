"""Access keys."""

from __future__ import annotations

import re
from typing import Final

from litestar import Controller, delete, get, post
from litestar.params import FromPath
from litestar.types import ASGIApp

from ocean_core.api.access import origin_of
from ocean_core.api.answer import answer
from ocean_core.api.body import json_body
from ocean_core.api.input import decode_body
from ocean_core.api.openapi import answers, operation
from ocean_core.api.paging import LIMIT, after_parameter, page_limit, query_problem, query_texts
from ocean_core.api.record_schemas import KEY_OPERATION, READ_PROBLEMS, WRITE_PROBLEMS
from ocean_core.api.services import AnyRequest, path_text, services_of
from ocean_core.service.accounts.keys import CreatedKey, KeyList, KeyRevoked, NewKey

_CURSOR: Final = "^[0-9]{1,18}-[0-9a-f]{1,64}$"


class KeysController(Controller):
    """Routes of /api/ocean/keys."""

    path = "/api/ocean/keys"
    tags = ("Keys",)

    @post(
        status_code=200,
        opt={"access": "admin"},
        operation_class=KEY_OPERATION,
        responses=answers(CreatedKey, *WRITE_PROBLEMS, 404, 409),
        summary="Make a key",
    )
    async def create(self, request: AnyRequest) -> ASGIApp:
        """Make a key. The field key is shown here and never again."""
        services = services_of(request)
        query_texts(request)
        async with json_body(request, services) as body:
            new = decode_body(body, NewKey)
        return answer(await services.keys.create(new, origin_of(request)))

    @get(
        opt={"access": "admin"},
        operation_class=operation(LIMIT, after_parameter("1780000000000000-0a1b2c", _CURSOR)),
        responses=answers(KeyList, *READ_PROBLEMS),
        summary="Keys",
    )
    async def keys(self, request: AnyRequest) -> ASGIApp:
        """Return a page of keys, the oldest first, without what proves them."""
        texts = query_texts(request, "limit", "after")
        after = texts.get("after", "0-0")
        if not re.fullmatch(_CURSOR, after):
            raise query_problem("after", after, "the field next of the page before")
        created_us, _, key_id = after.partition("-")
        keys = services_of(request).keys
        return answer(await keys.page((int(created_us), key_id), page_limit(texts)))

    @delete(
        "/{key_id:str}",
        status_code=200,
        opt={"access": "admin"},
        responses=answers(KeyRevoked, *READ_PROBLEMS, 404, 507),
        summary="Revoke a key",
    )
    async def revoke(self, request: AnyRequest, key_id: FromPath[str]) -> ASGIApp:
        """Let a key count no longer, from before the answer on; again does no harm."""
        return answer(await services_of(request).keys.revoke(path_text(key_id), origin_of(request)))
