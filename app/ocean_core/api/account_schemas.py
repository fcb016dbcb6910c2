"""What the OpenAPI document says about users, billing and sessions."""

from __future__ import annotations

from enum import Enum
from typing import Any, Final

from litestar.openapi.spec import (
    Example,
    OpenAPIMediaType,
    OpenAPIType,
    Parameter,
    RequestBody,
    Schema,
)

from ocean_core.api.openapi import operation
from ocean_core.api.paging import LIMIT, after_parameter
from ocean_core.model import limits

UUID_EXAMPLE: Final = "7b9e2c1a-4f5d-4c3e-9a8b-1d2e3f405162"
USERS_CURSOR: Final = "^[0-9]{1,18}[.][0-9a-f-]{36}$"
SESSIONS_CURSOR: Final = "^[0-9a-f-]{36}[.][0-9]{1,18}[.][0-9a-f-]{36}$"
LEDGER_CURSOR: Final = "^[0-9]{1,18}$"


class _Json(Enum):
    """Litestar leaves None out of what it writes, also of examples; an Enum's value it keeps."""

    NULL = None


_NULL: Final = OpenAPIType.NULL
_TEXT: Final = OpenAPIType.STRING
_IDEMPOTENCY_KEY: Final = Parameter(
    name="Idempotency-Key",
    param_in="header",
    required=False,
    description="Any text, for example a UUID; a repeat of the same request within 24 hours changes "
    "nothing and gets the first answer again.",
    schema=Schema(type=_TEXT, min_length=1, max_length=255, pattern="^[ -~]+$"),
)


def _query(name: str, description: str, schema: Schema) -> Parameter:
    return Parameter(
        name=name, param_in="query", required=False, description=description, schema=schema
    )


def _body(schema: Schema, examples: dict[str, Any], *, required: bool = True) -> RequestBody:
    shown = {name: Example(value=value) for name, value in examples.items()}
    return RequestBody(
        required=required,
        content={"application/json": OpenAPIMediaType(schema=schema, examples={**shown})},
    )


def _object(properties: dict[str, Schema], **more: Any) -> Schema:  # noqa: ANN401 - whatever Schema takes
    return Schema(
        type=OpenAPIType.OBJECT, additional_properties=False, properties={**properties}, **more
    )


_USERNAME: Final = Schema(
    type=_TEXT,
    min_length=1,
    max_length=limits.USERNAME_BYTES_MAX,
    pattern=r"^\S(.*\S)?$",
    description=f"At most {limits.USERNAME_BYTES_MAX} bytes of UTF-8; nothing invisible, single "
    "spaces. Unique, however it is capitalised.",
)
_EMAIL: Final = Schema(
    type=_TEXT,
    min_length=3,
    max_length=limits.EMAIL_BYTES_MAX,
    pattern=r"^[^\s@]+@[^\s@]+$",
    description=f"At most {limits.EMAIL_BYTES_MAX} bytes of UTF-8. Unique, however capitalised.",
)
_PASSWORD_TEXT: Final = (
    f"At least {limits.PASSWORD_LETTERS_MIN} characters, at most {limits.PASSWORD_BYTES_MAX} bytes "
    "of UTF-8."
)
_PASSWORD: Final = Schema(
    type=[_TEXT, _NULL], max_length=limits.PASSWORD_BYTES_MAX, description=_PASSWORD_TEXT
)
_STATUS: Final = Schema(type=_TEXT, enum=["active", "disabled"])

CREATE_USER: Final = operation(
    _IDEMPOTENCY_KEY,
    body=_body(
        _object(
            {"username": _USERNAME, "email": _EMAIL, "password": _PASSWORD},
            required=["username", "email"],
        ),
        {
            "the original shape": {"username": "anna", "email": "anna@plant.example"},
            "who may log in": {
                "username": "ben",
                "email": "ben@plant.example",
                "password": "correct horse battery",
            },
        },
    ),
)
LIST_USERS: Final = operation(
    LIMIT,
    after_parameter(f"1780000000000000.{UUID_EXAMPLE}", USERS_CURSOR),
    _query("status", "Only users of this status.", _STATUS),
)
UPDATE_USER: Final = operation(
    body=_body(
        _object(
            {
                "username": _USERNAME,
                "email": _EMAIL,
                "password": Schema(
                    type=[_TEXT, _NULL],
                    max_length=limits.PASSWORD_BYTES_MAX,
                    description=_PASSWORD_TEXT + " null removes it. Both end the user's sessions.",
                ),
                "status": _STATUS,
            },
            min_properties=1,
        ),
        {
            "disable": {"status": "disabled"},
            "another address": {"email": "anna@hall-b.example"},
            "no more logins": {"password": _Json.NULL},
        },
    )
)

_AMOUNT: Final = Schema(
    type=OpenAPIType.INTEGER,
    minimum=-limits.CREDITS_MAX,
    maximum=limits.CREDITS_MAX,
    description="Below 0 it is taken; 0 is refused.",
)
ADD_CREDITS: Final = operation(
    _IDEMPOTENCY_KEY,
    _query("amount", "The original's form, instead of amount in the body.", _AMOUNT),
    body=_body(
        _object(
            {
                "amount": _AMOUNT,
                "note": Schema(
                    type=_TEXT,
                    max_length=limits.LEDGER_NOTE_BYTES_MAX,
                    description=f"Kept in the ledger; at most {limits.LEDGER_NOTE_BYTES_MAX} bytes "
                    "of UTF-8.",
                ),
            }
        ),
        {
            "give": {"amount": 10_000, "note": "January"},
            "take": {"amount": -500, "note": "entered twice"},
        },
        required=False,
    ),
)
LEDGER: Final = operation(LIMIT, after_parameter("42", LEDGER_CURSOR))

_OPTIONAL: Final = Schema(type=[_TEXT, _NULL])
_WHO: Final = "What is given must all belong to one user."
CREATE_SESSION: Final = operation(
    body=_body(
        _object(
            {
                "user_id": _OPTIONAL,
                "username": _OPTIONAL,
                "email": _OPTIONAL,
                "password": Schema(
                    type=[_TEXT, _NULL],
                    max_length=limits.PASSWORD_BYTES_MAX,
                    description="Without it, the scope admin is needed.",
                ),
            },
            min_properties=1,
            description="At least one of user_id, username and email. " + _WHO,
        ),
        {
            "log in": {"username": "ben", "password": "correct horse battery"},
            "by an administrator": {"user_id": UUID_EXAMPLE, "username": "anna"},
        },
    )
)
_TOKEN: Final = _object({"token": Schema(type=_TEXT)}, required=["token"])
_TOKEN_EXAMPLE: Final = {"token": {"token": "n2y7yTzMSk9nM1hYyFbPMmFRm0o9CkFmTq2Wm8dXbQc"}}
VALIDATE_SESSION: Final = operation(
    _query(
        "token",
        "Deprecated, since addresses end up in logs: the original's form, instead of a body.",
        Schema(type=_TEXT),
    ),
    body=_body(_TOKEN, _TOKEN_EXAMPLE, required=False),
)
REVOKE_TOKEN: Final = operation(body=_body(_TOKEN, _TOKEN_EXAMPLE, required=False))
LIST_SESSIONS: Final = operation(
    LIMIT,
    after_parameter(f"{UUID_EXAMPLE}.1780000000000000.{UUID_EXAMPLE}", SESSIONS_CURSOR),
    _query("user_id", "Only sessions of this user.", Schema(type=_TEXT, min_length=1)),
)
