"""JSON values under keys."""

from __future__ import annotations

import re
from typing import Final

import msgspec
from litestar import Controller, delete, get, post
from litestar.params import FromPath
from litestar.types import ASGIApp

from ocean_core.api.access import origin_of
from ocean_core.api.answer import answer
from ocean_core.api.body import json_body
from ocean_core.api.input import decode_body
from ocean_core.api.openapi import answers, operation, query_parameter
from ocean_core.api.paging import LIMIT, after_parameter, page_limit, query_problem, query_texts
from ocean_core.api.record_schemas import METADATA_OPERATION, READ_PROBLEMS, WRITE_PROBLEMS
from ocean_core.api.services import AnyRequest, path_text, services_of
from ocean_core.service.accounts.metadata import (
    MetadataDeleted,
    MetadataEntry,
    MetadataList,
    MetadataSet,
)

_NUMBER: Final = re.compile(r"[+-]?([0-9]{1,20}(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,2})?")
_PREFIX: Final = query_parameter("prefix", "Only keys that begin so.", "shift.")


class MetadataValue(msgspec.Struct, forbid_unknown_fields=True):
    """A value to set, and how long it stays."""

    value: msgspec.Raw
    ttl_s: float | None = None


async def _value_of(request: AnyRequest) -> MetadataValue:
    """Return what is to be set: from the body, or as in the original from the address."""
    texts = query_texts(request, "value", "ttl_s")
    services = services_of(request)
    if "value" not in texts:
        if "ttl_s" in texts:
            raise query_problem("ttl_s", texts["ttl_s"], "ttl_s in the address only beside value")
        async with json_body(request, services) as body:
            return decode_body(body, MetadataValue, wrapper="value")
    if request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers:
        async with json_body(request, services) as body:
            if body:
                raise query_problem("value", texts["value"], "a body, or value in the address")
    value = msgspec.Raw(msgspec.json.encode(texts["value"]))
    ttl = texts.get("ttl_s")
    if ttl is not None and not _NUMBER.fullmatch(ttl):
        raise query_problem("ttl_s", ttl, "a number of seconds")
    return MetadataValue(value, None if ttl is None else float(ttl))


class MetadataController(Controller):
    """Routes of /api/ocean/metadata."""

    path = "/api/ocean/metadata"
    tags = ("Metadata",)

    @get(
        opt={"access": "read"},
        operation_class=operation(LIMIT, after_parameter("shift.3"), _PREFIX),
        responses=answers(MetadataList, *READ_PROBLEMS),
        summary="Keys and their values",
    )
    async def entries(self, request: AnyRequest) -> ASGIApp:
        """Return a page of keys by name."""
        texts = query_texts(request, "limit", "after", "prefix")
        prefix, after = texts.get("prefix", ""), texts.get("after", "")
        metadata = services_of(request).metadata
        return answer(await metadata.page(prefix, after, page_limit(texts)))

    @get(
        "/{key:str}",
        opt={"access": "read"},
        responses=answers(MetadataEntry, *READ_PROBLEMS, 404),
        summary="The value of a key",
    )
    async def entry(self, request: AnyRequest, key: FromPath[str]) -> ASGIApp:
        """Return the value exactly as it was given."""
        return answer(await services_of(request).metadata.get(path_text(key)))

    @post(
        "/{key:str}",
        status_code=200,
        opt={"access": "admin"},
        operation_class=METADATA_OPERATION,
        responses=answers(MetadataSet, *WRITE_PROBLEMS),
        summary="Set the value of a key",
    )
    async def set_value(self, request: AnyRequest, key: FromPath[str]) -> ASGIApp:
        """Store a value in place of what was there. A slash in a key is written %2F."""
        found = await _value_of(request)
        metadata = services_of(request).metadata
        return answer(await metadata.set(path_text(key), found.value, found.ttl_s))

    @delete(
        "/{key:str}",
        status_code=200,
        opt={"access": "admin"},
        responses=answers(MetadataDeleted, *READ_PROBLEMS, 404, 507),
        summary="Delete a key",
    )
    async def delete_key(self, request: AnyRequest, key: FromPath[str]) -> ASGIApp:
        """Delete a key and its value."""
        metadata = services_of(request).metadata
        return answer(await metadata.delete(path_text(key), origin_of(request)))
