"""AES-256-GCM over the payload of levels 2 and 3 (section 5).

A payload on the wire is an IV of 12 bytes, the ciphertext and a tag of 16; the header, with its
final length, is authenticated with it.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

from ocean_core.protocol.nanogridata.frame import HEADER_BYTES, FrameRefusedError, Outcome

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

IV_BYTES: Final = 12
TAG_BYTES: Final = 16
OVERHEAD_BYTES: Final = IV_BYTES + TAG_BYTES


def decrypt(header: bytes, payload: bytes, key: bytes) -> bytes:
    """Return the plaintext of a payload. Raises FrameRefusedError (E_DECRYPT)."""
    if len(payload) < OVERHEAD_BYTES:
        raise FrameRefusedError(
            Outcome.DECRYPT, HEADER_BYTES,
            f"a payload of {len(payload)} bytes found; an encrypted one has {IV_BYTES} of IV, the "
            f"ciphertext and {TAG_BYTES} of tag, so {OVERHEAD_BYTES} or more",
        )  # fmt: skip
    aead, invalid_tag = _library()
    try:
        return aead(key).decrypt(payload[:IV_BYTES], payload[IV_BYTES:], header)
    except invalid_tag:
        raise FrameRefusedError(
            Outcome.DECRYPT, HEADER_BYTES + IV_BYTES,
            "the payload does not decrypt: not AES-256-GCM with the key that section 5 makes of "
            "the secret, the header as additional data, and IV, ciphertext, tag in this order",
        ) from None  # fmt: skip


def encrypt(header: bytes, plaintext: bytes, key: bytes, iv: bytes) -> bytes:
    """Return the payload as it goes on the wire; ``header`` has its final length already.

    An IV of 12 bytes must never be used twice with one key.
    """
    aead, _ = _library()
    return iv + aead(key).encrypt(iv, plaintext, header)


@cache
def _library() -> tuple[type[AESGCM], type[Exception]]:
    """Return the cipher, loaded when the first encrypted frame comes: most boxes see none."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM, InvalidTag
