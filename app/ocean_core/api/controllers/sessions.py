"""Sessions."""

from __future__ import annotations

import re
from typing import Final

import msgspec
from litestar import Controller, delete, get, post
from litestar.params import FromPath
from litestar.types import ASGIApp

from ocean_core.api.access import origin_of, principal_of
from ocean_core.api.account_schemas import (
    CREATE_SESSION,
    LIST_SESSIONS,
    REVOKE_TOKEN,
    SESSIONS_CURSOR,
    VALIDATE_SESSION,
)
from ocean_core.api.answer import answer
from ocean_core.api.body import json_body
from ocean_core.api.input import decode_body
from ocean_core.api.openapi import answers
from ocean_core.api.own import check_own
from ocean_core.api.paging import page_limit, query_problem, query_texts
from ocean_core.api.record_schemas import READ_PROBLEMS, WRITE_PROBLEMS
from ocean_core.api.services import AnyRequest, path_text, services_of
from ocean_core.model import limits
from ocean_core.model.access import Scope
from ocean_core.model.errors import FieldProblem, ForbiddenError, RequestError
from ocean_core.service.accounts.checks import refused
from ocean_core.service.accounts.session_answers import (
    NewSession,
    SessionCreated,
    SessionList,
    SessionRevoked,
    Validation,
)

# RFC 9745: since when the token should no longer stand in the address, 2026-01-17.
_DEPRECATED: Final = {"Deprecation": "@1768608000"}


class SessionToken(msgspec.Struct, forbid_unknown_fields=True):
    """What a session is known by."""

    token: str

    def __repr__(self) -> str:
        return "SessionToken()"


async def _token_in_body(request: AnyRequest) -> str | None:
    async with json_body(request, services_of(request), limits.LOGIN_BODY_BYTES_MAX) as body:
        return decode_body(body, SessionToken).token if body else None


def _token_in_address(request: AnyRequest) -> str | None:
    tokens = request.query_params.getall("token", [])
    if len(tokens) > 1:
        # Not with the words of query_texts, which quote what was found.
        raise RequestError(
            "token is given twice", fields=(FieldProblem("token", "two tokens", "one token"),)
        )
    return query_texts(request, "token").get("token")


def _token_in_header(request: AnyRequest) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise refused(
            FieldProblem("token", "nothing", "a token in the body, or Authorization: Bearer TOKEN")
        )
    return token.strip()


class SessionsController(Controller):
    """Routes of /api/ocean/sessions."""

    path = "/api/ocean/sessions"
    tags = ("Sessions",)

    @post(
        "/create",
        status_code=200,
        opt={"access": "public"},
        operation_class=CREATE_SESSION,
        responses=answers(SessionCreated, *WRITE_PROBLEMS, 404),
        summary="Log in",
    )
    async def create(self, request: AnyRequest) -> ASGIApp:
        """Make a session for a user's password, or without one for an administrator."""
        services = services_of(request)
        query_texts(request)
        async with json_body(request, services, limits.LOGIN_BODY_BYTES_MAX) as body:
            new = decode_body(body, NewSession)
        return answer(await services.sessions.create(new, origin_of(request)))

    @post(
        "/validate",
        status_code=200,
        opt={"access": "public"},
        operation_class=VALIDATE_SESSION,
        responses=answers(Validation, *WRITE_PROBLEMS),
        summary="Is a token valid",
    )
    async def validate(self, request: AnyRequest) -> ASGIApp:
        """Return the session of a token and renew it.

        The token stands in the body, else in the Authorization header, else, as in the original
        and deprecated, in the address.
        """
        in_address = _token_in_address(request) if request.scope["query_string"] else None
        token = await _token_in_body(request)
        if token is not None and in_address is not None and token != in_address:
            raise RequestError(
                "body and address have different tokens",
                fields=(FieldProblem("token", "another token in the address", "one token"),),
            )
        if token is None:
            token = in_address
        if token is None:
            token = _token_in_header(request)
        found = await services_of(request).sessions.validate(token)
        return answer(found, headers=None if in_address is None else _DEPRECATED)

    @post(
        "/revoke",
        status_code=200,
        opt={"access": "public"},
        operation_class=REVOKE_TOKEN,
        responses=answers(SessionRevoked, *WRITE_PROBLEMS),
        summary="Log out",
    )
    async def revoke_token(self, request: AnyRequest) -> ASGIApp:
        """End the session of the token in the body, else in the Authorization header."""
        query_texts(request)
        token = await _token_in_body(request) or _token_in_header(request)
        return answer(await services_of(request).sessions.revoke_token(token))

    @get(
        opt={"access": "self"},
        operation_class=LIST_SESSIONS,
        responses=answers(SessionList, *READ_PROBLEMS),
        summary="Sessions",
    )
    async def sessions(self, request: AnyRequest) -> ASGIApp:
        """Return sessions that are valid now by user and creation; to a session, its own user's."""
        texts = query_texts(request, "limit", "after", "user_id")
        principal = principal_of(request)
        user_id = texts.get("user_id")
        if user_id == "":
            raise query_problem("user_id", "", "the id of a user")
        if user_id is None and not principal.may(Scope.ADMIN):
            user_id = principal.user_id
            if user_id is None:
                raise ForbiddenError(f"{principal.actor} is no session and has not the scope admin")
        if user_id is not None:
            check_own(principal, user_id)
        after = texts.get("after")
        cursor = None
        if after is not None:
            if not re.fullmatch(SESSIONS_CURSOR, after):
                raise query_problem("after", after, "the field next of the page before")
            of_user, created_us, session_id = after.split(".")
            cursor = (of_user, int(created_us), session_id)
        limit = page_limit(texts)
        sessions = services_of(request).sessions
        return answer(await sessions.page(user_id=user_id, limit=limit, after=cursor))

    @delete(
        "/{session_id:str}",
        status_code=200,
        opt={"access": "self"},
        responses=answers(SessionRevoked, *READ_PROBLEMS, 404, 507),
        summary="End a session",
    )
    async def revoke(self, request: AnyRequest, session_id: FromPath[str]) -> ASGIApp:
        """End a session of one's own, or as an administrator any."""
        sessions = services_of(request).sessions
        return answer(await sessions.revoke(path_text(session_id), origin_of(request)))
