"""Users."""

from __future__ import annotations

import re

import msgspec
from litestar import Controller, get, patch, post
from litestar.params import FromPath
from litestar.types import ASGIApp

from ocean_core.api.access import origin_of, principal_of
from ocean_core.api.account_schemas import CREATE_USER, LIST_USERS, UPDATE_USER, USERS_CURSOR
from ocean_core.api.answer import answer
from ocean_core.api.body import json_body
from ocean_core.api.input import decode_body
from ocean_core.api.openapi import answers
from ocean_core.api.own import check_own
from ocean_core.api.paging import page_limit, query_problem, query_texts
from ocean_core.api.record_schemas import READ_PROBLEMS, WRITE_PROBLEMS
from ocean_core.api.services import AnyRequest, path_text, services_of
from ocean_core.model.errors import FieldProblem, InvalidInputError
from ocean_core.service.accounts.users import NewUser, User, UserChange, UserList
from ocean_core.storage.operational.users import ACTIVE, DISABLED


class UsersController(Controller):
    """Routes of /api/ocean/users."""

    path = "/api/ocean/users"
    tags = ("Users",)

    @post(
        status_code=200,
        opt={"access": "admin"},
        operation_class=CREATE_USER,
        responses=answers(User, *WRITE_PROBLEMS, 409),
        summary="Make a user",
    )
    async def create(self, request: AnyRequest) -> ASGIApp:
        """Make a user with an account; a password is only needed to log in."""
        services = services_of(request)
        query_texts(request)
        async with json_body(request, services) as body:
            new = decode_body(body, NewUser)
        key = request.headers.get("idempotency-key")
        return answer(msgspec.Raw(await services.users.create(new, origin_of(request), key)))

    @get(
        opt={"access": "admin"},
        operation_class=LIST_USERS,
        responses=answers(UserList, *READ_PROBLEMS),
        summary="Users",
    )
    async def users(self, request: AnyRequest) -> ASGIApp:
        """Return a page of users in the order of their creation."""
        texts = query_texts(request, "limit", "after", "status")
        status = texts.get("status")
        if status not in {None, ACTIVE, DISABLED}:
            raise query_problem("status", status or "", f"{ACTIVE} or {DISABLED}")
        after = texts.get("after")
        cursor = None
        if after is not None:
            if not re.fullmatch(USERS_CURSOR, after):
                raise query_problem("after", after, "the field next of the page before")
            created_us, _, user_id = after.partition(".")
            cursor = (int(created_us), user_id)
        limit = page_limit(texts)
        return answer(
            await services_of(request).users.page(limit=limit, after=cursor, status=status)
        )

    @get(
        "/{user_id:str}",
        opt={"access": "self"},
        responses=answers(User, *READ_PROBLEMS, 404),
        summary="One user",
    )
    async def user(self, request: AnyRequest, user_id: FromPath[str]) -> ASGIApp:
        """Return a user, to an administrator or to the user's own session."""
        user_id = path_text(user_id)
        check_own(principal_of(request), user_id)
        return answer(await services_of(request).users.get(user_id))

    @patch(
        "/{user_id:str}",
        opt={"access": "admin"},
        operation_class=UPDATE_USER,
        responses=answers(User, *WRITE_PROBLEMS, 404, 409),
        summary="Change or disable a user",
    )
    async def update(self, request: AnyRequest, user_id: FromPath[str]) -> ASGIApp:
        """Change what is given. To disable a user ends all of the user's sessions at once."""
        services = services_of(request)
        query_texts(request)
        async with json_body(request, services) as body:
            change = decode_body(body, UserChange)
        if not change.fields():
            raise InvalidInputError(
                "there is nothing to change",
                fields=(FieldProblem("body", "no field", "username, email, password or status"),),
            )
        user_id = path_text(user_id)
        return answer(await services.users.update(user_id, change, origin_of(request)))
