"""What may be a username or an email address, and when two of them are the same.

**Usernames** are kept as given, in Unicode's NFC. Two are the same if Unicode's compatibility
caseless matching (D146: NFKC and full case folding) makes them equal, so that capitals, full-width
letters and ligatures find the user that they look like. Letters that only look alike across scripts
(Latin a, Cyrillic a) stay different.

**Email addresses** have exactly one @. The local part is kept in NFC, the domain in lower case.
Two are the same if the folded local parts and the domains, in their ASCII form (IDNA), are equal.
Quoted local parts and address literals such as ``[10.0.0.1]`` are not taken; a domain of one label
(``anna@plant``) is, because a box without Internet has no other.

Neither may contain what cannot be seen or changes how its surroundings are shown: control and
format characters (bidirectional marks, zero width), private use, surrogates, unassigned, line
separators, spaces other than the plain one, and letters that Unicode lets disappear. Unassigned
characters are refused also because a later Unicode may fold them: the key of a stored name would
no longer be the key of the same name given again.
"""

from __future__ import annotations

import re
from typing import Final
from unicodedata import category, normalize

from ocean_core.model import limits
from ocean_core.model.errors import FieldProblem, InvalidInputError
from ocean_core.service.accounts.checks import refused

LOCAL_PART_BYTES_MAX: Final = 64
_DOMAIN_LETTERS_MAX: Final = 253
_SHOWN_MAX: Final = 80

_CATEGORIES_REFUSED: Final = {
    "Cc": "a control character",
    "Cf": "a format character",
    "Cs": "a surrogate",
    "Co": "a private-use character",
    "Cn": "an unassigned character",
    "Zl": "a line separator",
    "Zp": "a paragraph separator",
}
# Default_Ignorable_Code_Point beyond category Cf, and the blank braille pattern.
_UNSEEN: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
# Most names: one pass of one expression says that nothing below can object.
_PLAIN_NAME: Final = re.compile(r"[!-~]+(?: [!-~]+)*")
_ATOM: Final = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\U0010ffff-]+"
_LOCAL_PART: Final = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_DIGITS: Final = re.compile(r"[0-9.]+")


def check_username(text: str) -> tuple[str, str]:
    """Return the name as it is kept, and the key that makes it unique.

    Raises InvalidInputError naming the field ``username``.
    """
    limit = limits.USERNAME_BYTES_MAX
    expected = f"1 to {limit} bytes in UTF-8"
    if not text:
        raise _problem("username", "nothing", expected)
    # NFC may shorten, but not to less than one byte a character.
    if len(text) > limit:
        raise _problem("username", f"{len(text)} characters", expected)
    if _PLAIN_NAME.fullmatch(text):
        return text, text.lower()
    _check_visible("username", text)
    name = normalize("NFC", text)
    size = len(name.encode())
    if size > limit:
        raise _problem("username", f"{size} bytes", expected)
    if name.startswith(" ") or name.endswith(" "):
        raise _problem("username", "a space at an end", "no space before or after the name")
    if "  " in name:
        raise _problem("username", "two spaces in a row", "single spaces")
    if category(name[0]).startswith("M"):
        raise _problem(
            "username", f"U+{ord(name[0]):04X} as the first character", "a letter before its accent"
        )
    return name, folded(name)


def check_email(text: str) -> tuple[str, str]:
    """Return the address as it is kept, and the key that makes it unique.

    Raises InvalidInputError naming the field ``email``.
    """
    limit = limits.EMAIL_BYTES_MAX
    expected = f"3 to {limit} bytes in UTF-8"
    if len(text) > limit:
        raise _problem("email", f"{len(text)} characters", expected)
    _check_visible("email", text)
    if " " in text:
        raise _problem("email", "a space", "no space")
    email = normalize("NFC", text)
    if email.count("@") != 1:
        raise _problem("email", f"{email.count('@')} times @", "exactly one @")
    local, _, domain = email.partition("@")
    local_key = _check_local_part(local)
    domain = domain.lower()
    domain_key = _check_domain(domain)
    email = f"{local}@{domain}"
    size = len(email.encode())
    if size > limit:
        raise _problem("email", f"{size} bytes", expected)
    return email, f"{local_key}@{domain_key}"


def folded(text: str) -> str:
    """Return the form in which texts that differ only in case or compatibility are equal."""
    if text.isascii():
        return text.lower()
    # Unicode's D146: twice, because normalising may bring forth what can be folded again.
    once = normalize("NFKC", normalize("NFD", text).casefold())
    return normalize("NFKC", once.casefold())


def find_key(text: str, *, is_email: bool) -> str | None:
    """Return the key under which a login name may be stored, None if none can be."""
    try:
        return (check_email if is_email else check_username)(text)[1]
    except InvalidInputError:
        return None


def _check_visible(field: str, text: str) -> None:
    if text.isascii() and text.isprintable():
        return
    for at, letter in enumerate(text):
        kind = category(letter)
        what = _CATEGORIES_REFUSED.get(kind)
        if what is None and kind == "Zs" and letter != " ":
            what = "a space other than the plain one"
        if what is None and _UNSEEN.match(letter):
            what = "an invisible character"
        if what is not None:
            raise _problem(
                field, f"{what}, U+{ord(letter):04X}, at position {at + 1}", "visible characters"
            )


def _check_local_part(local: str) -> str:
    if not local:
        raise _problem("email", "nothing before the @", "a name before the @")
    size = len(local.encode())
    if size > LOCAL_PART_BYTES_MAX:
        raise _problem(
            "email",
            f"{size} bytes before the @",
            f"at most {LOCAL_PART_BYTES_MAX} bytes before the @",
        )
    key = folded(local)
    # The folded form as well: a full-width @ must not become one in the key.
    for form in (local, key):
        if not _LOCAL_PART.fullmatch(form):
            raise _problem(
                "email",
                _shown(local),
                "letters, digits and !#$%&'*+/=?^_`{|}~- with single dots between, before the @",
            )
    return key


def _check_domain(domain: str) -> str:
    expected = "a domain name after the @, such as example.org"
    if not domain:
        raise _problem("email", "nothing after the @", expected)
    try:
        key = domain if domain.isascii() else domain.encode("idna").decode("ascii").lower()
    except UnicodeError:
        raise _problem("email", _shown(domain), expected) from None
    # The codec takes other full stops for dots; nobody could tell such an address from another.
    if key.count(".") != domain.count("."):
        raise _problem("email", _shown(domain), "plain dots between the parts of the domain")
    if len(key) > _DOMAIN_LETTERS_MAX or not _DOMAIN.fullmatch(key):
        raise _problem("email", _shown(domain), expected)
    if _DIGITS.fullmatch(key):
        raise _problem("email", _shown(domain), "a domain name after the @, not an address")
    return key


def _shown(text: str) -> str:
    return text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "…"


def _problem(field: str, found: str, expected: str) -> InvalidInputError:
    return refused(FieldProblem(field, found, expected))
