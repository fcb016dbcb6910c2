"""Accounts of users: credits, usage, ledger."""

from __future__ import annotations

import re
from typing import Final

import msgspec
from litestar import Controller, get, post
from litestar.params import FromPath
from litestar.types import ASGIApp
from msgspec import UNSET

from ocean_core.api.access import origin_of, principal_of
from ocean_core.api.account_schemas import ADD_CREDITS, LEDGER
from ocean_core.api.answer import answer
from ocean_core.api.body import json_body
from ocean_core.api.input import decode_body
from ocean_core.api.openapi import answers
from ocean_core.api.own import check_own
from ocean_core.api.paging import page_limit, query_problem, query_texts, whole_number
from ocean_core.api.record_schemas import READ_PROBLEMS, WRITE_PROBLEMS
from ocean_core.api.services import AnyRequest, path_text, services_of
from ocean_core.model import limits
from ocean_core.model.errors import FieldProblem
from ocean_core.service.accounts.billing_answers import Account, Credits, CreditsChange, Ledger
from ocean_core.service.accounts.checks import refused

_AMOUNT: Final = re.compile("-?[0-9]{1,18}")


async def _change_of(request: AnyRequest) -> tuple[int, str]:
    """Return amount and note, from the body or, as in the original, from the address."""
    text = query_texts(request, "amount").get("amount")
    services = services_of(request)
    async with json_body(request, services, limits.LOGIN_BODY_BYTES_MAX) as body:
        change = decode_body(body, CreditsChange) if body else CreditsChange()
    amount = change.amount
    if text is not None:
        if not _AMOUNT.fullmatch(text):
            raise query_problem("amount", text, "a whole number")
        if amount is not UNSET and amount != int(text):
            raise query_problem("amount", text, f"the same amount as in the body, {amount}")
        amount = int(text)
    if amount is UNSET:
        raise refused(FieldProblem("amount", "nothing", "a whole number"))
    return amount, change.note


class BillingController(Controller):
    """Routes of /api/ocean/billing."""

    path = "/api/ocean/billing"
    tags = ("Billing",)

    @get(
        "/{user_id:str}",
        opt={"access": "self"},
        responses=answers(Account, *READ_PROBLEMS, 404),
        summary="The account of a user",
    )
    async def account(self, request: AnyRequest, user_id: FromPath[str]) -> ASGIApp:
        """Return credits and usage as of now: readings stored under the user's keys."""
        user_id = path_text(user_id)
        check_own(principal_of(request), user_id)
        return answer(await services_of(request).billing.get(user_id))

    @post(
        "/{user_id:str}/add-credits",
        status_code=200,
        opt={"access": "admin"},
        operation_class=ADD_CREDITS,
        responses=answers(Credits, *WRITE_PROBLEMS, 402, 404),
        summary="Give or take credits",
    )
    async def add_credits(self, request: AnyRequest, user_id: FromPath[str]) -> ASGIApp:
        """Give credits, or take them with an amount below 0; never more than are free."""
        amount, note = await _change_of(request)
        key = request.headers.get("idempotency-key")
        billing = services_of(request).billing
        told = await billing.add_credits(path_text(user_id), amount, note, origin_of(request), key)
        return answer(msgspec.Raw(told))

    @get(
        "/{user_id:str}/ledger",
        opt={"access": "self"},
        operation_class=LEDGER,
        responses=answers(Ledger, *READ_PROBLEMS, 404),
        summary="Why a user has these credits",
    )
    async def ledger(self, request: AnyRequest, user_id: FromPath[str]) -> ASGIApp:
        """Return changes of credits, newest first. Amounts add up to the credits settled."""
        user_id = path_text(user_id)
        check_own(principal_of(request), user_id)
        texts = query_texts(request, "limit", "after")
        after = whole_number("after", texts["after"]) if "after" in texts else None
        billing = services_of(request).billing
        return answer(await billing.ledger(user_id, limit=page_limit(texts), after=after))
