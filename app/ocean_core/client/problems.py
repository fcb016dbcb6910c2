"""Problem documents become the errors they were made from."""

from __future__ import annotations

from typing import Any, Final

from ocean_core.model.errors import CommandError, FieldProblem, OceanError, all_error_classes

_CLASSES: Final = {cls.code: cls for cls in all_error_classes()}


def error_of(status: int, body: object, retry_after_s: int | None = None) -> OceanError:
    """Return the error that an answer stands for: its own class if we know the code.

    An answer that is no problem document, or has the code of a newer version, becomes a
    CommandError that says what came.
    """
    if not isinstance(body, dict) or "detail" not in body:
        return CommandError(f"the server answered {status}: {str(body)[:200]}")
    detail, code = str(body["detail"]), str(body.get("code", ""))
    hint = str(body.get("hint", ""))
    fields = _fields(body.get("errors"))
    cls = _CLASSES.get(code)
    if cls is None:
        return CommandError(
            f"the server refused with {code or status}: {detail}", hint=hint, fields=fields
        )
    return cls(detail, hint=hint, fields=fields, retry_after_s=retry_after_s)


def error_named(code: str, detail: str, hint: str) -> OceanError:
    """Return the error of a code, as another process told it in words."""
    return _CLASSES.get(code, CommandError)(detail, hint=hint)


def _fields(found: Any) -> tuple[FieldProblem, ...]:  # noqa: ANN401 - JSON
    if not isinstance(found, list):
        return ()
    return tuple(
        FieldProblem(
            str(entry.get("field", "")),
            str(entry.get("found", "")),
            str(entry.get("expected", "")),
            entry.get("item"),
        )
        for entry in found
        if isinstance(entry, dict)
    )
