"""Parameters in the address of lists: how many, behind what. Each at most once, none unknown."""

from __future__ import annotations

import re
from typing import Final

from litestar.openapi.spec import OpenAPIType, Parameter, Schema

from ocean_core.api.services import AnyRequest
from ocean_core.model import limits
from ocean_core.model.errors import FieldProblem, RequestError
from ocean_core.protocol.readings.wording import found_value, sentence

_DIGITS: Final = re.compile("[0-9]{1,18}")

LIMIT: Final = Parameter(
    name="limit",
    param_in="query",
    required=False,
    description="How many are listed at most; large ones make a page shorter.",
    schema=Schema(
        type=OpenAPIType.INTEGER,
        minimum=1,
        maximum=limits.RECORDS_PAGE_MAX,
        default=limits.RECORDS_PAGE_DEFAULT,
    ),
)


def after_parameter(example: str, pattern: str | None = None) -> Parameter:
    """Return the declaration of ``after`` for one list."""
    return Parameter(
        name="after",
        param_in="query",
        required=False,
        description="Continue behind this: the field next of the page before.",
        schema=Schema(type=OpenAPIType.STRING, pattern=pattern, examples=[example]),
    )


def query_texts(request: AnyRequest, *names: str) -> dict[str, str]:
    """Return the parameters in the address that were given.

    Raises RequestError for one that is unknown or given twice: ignored, it would change the
    meaning of the request without a word.
    """
    params = request.query_params
    texts: dict[str, str] = {}
    for name in params:
        values = params.getall(name)
        if name not in names:
            known = ", ".join(names) or "none"
            raise query_problem(name, values[0], f"no such parameter; known are {known}")
        if len(values) > 1:
            raise query_problem(name, values[1], "this parameter once")
        texts[name] = values[0]
    return texts


def page_limit(texts: dict[str, str]) -> int:
    """Return the parameter ``limit``. Raises RequestError."""
    text = texts.get("limit")
    if text is None:
        return limits.RECORDS_PAGE_DEFAULT
    number = whole_number("limit", text)
    if not 1 <= number <= limits.RECORDS_PAGE_MAX:
        raise query_problem("limit", text, f"a whole number from 1 to {limits.RECORDS_PAGE_MAX}")
    return number


def whole_number(name: str, text: str) -> int:
    """Return a parameter that is a whole number of at most 18 digits. Raises RequestError."""
    if not _DIGITS.fullmatch(text):
        raise query_problem(name, text, "a whole number")
    return int(text)


def query_problem(name: str, found: str, expected: str) -> RequestError:
    """Return the error for a parameter in the address."""
    problem = FieldProblem(name[:80], found_value(found), expected)
    return RequestError(sentence(problem) + ".", fields=(problem,))
