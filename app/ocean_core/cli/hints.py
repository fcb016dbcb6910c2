"""What to do next in the words of the command line, where the errors' own hints speak of HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from ocean_core.model.errors import (
    BufferFullError,
    BufferUnavailableError,
    ConflictError,
    CredentialsError,
    CreditsError,
    IdempotencyMismatchError,
    InvalidInputError,
    InvalidReadingError,
    LoginBackoffError,
    MalformedBodyError,
    MethodError,
    OceanError,
    PasswordsBusyError,
    QueriesFullError,
    RateLimitError,
    RequestError,
    RouteError,
    StoreBusyError,
    UnauthenticatedError,
    UnknownRecordError,
    UnknownSensorError,
    UnknownUserError,
    UserDisabledError,
)

_AGAIN: Final = "Run the command again in a moment."
_OTHER_VERSION: Final = (
    "Does the server at this address have another version (`ocean version`), or is it another "
    "program?"
)

HINTS: Final[dict[str, str]] = {
    MalformedBodyError.code: "Correct what was typed, then run the command again.",
    InvalidReadingError.code: "Correct the named field; nothing of this batch was stored.",
    IdempotencyMismatchError.code: "The same was sent before with other contents.",
    InvalidInputError.code: "Correct it and run the command again; nothing was changed.",
    BufferFullError.code: _AGAIN,
    BufferUnavailableError.code: "`ocean status` says why; then run the command again.",
    StoreBusyError.code: f"Nothing was done. {_AGAIN}",
    UnknownSensorError.code: "`ocean sensors list` shows the sensors.",
    QueriesFullError.code: _AGAIN,
    RouteError.code: _OTHER_VERSION,
    MethodError.code: _OTHER_VERSION,
    RequestError.code: _OTHER_VERSION,
    UnauthenticatedError.code: (
        "Name a key with --key-file FILE or the variable OCEAN_KEY; `ocean keys create` on the "
        "box makes one."
    ),
    RateLimitError.code: _AGAIN,
    CredentialsError.code: "Check both; `ocean users passwd USER` sets a new password.",
    LoginBackoffError.code: "Wait a while; each further failure doubles the wait.",
    PasswordsBusyError.code: _AGAIN,
    UnknownUserError.code: "`ocean users list` shows the users.",
    ConflictError.code: "Choose another value for the named field.",
    UserDisabledError.code: "`ocean users enable USER` enables the user again.",
    CreditsError.code: "`ocean users credits USER AMOUNT` adds some; nothing was changed.",
    UnknownRecordError.code: "`ocean keys list` shows the keys, `ocean users list` the users.",
}
"""By error code."""


def hint_of(error: OceanError) -> str:
    """Return the hint for whoever typed a command.

    A hint that was made for this very case stays.
    """
    if error.hint != type(error).hint:
        return error.hint
    return HINTS.get(error.code, error.hint)


@contextmanager
def hinting(kind: type[OceanError], hint: str) -> Iterator[None]:
    """Give errors of a kind a hint for this case."""
    try:
        yield
    except kind as error:
        error.hint = hint
        raise
