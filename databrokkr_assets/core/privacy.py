"""What becomes of personal data at the source, before anything is stored."""

from __future__ import annotations

from enum import StrEnum


class Masking(StrEnum):
    """How a column is masked."""

    DROP = "drop"
    """It is not stored."""
    HASH = "hash"
    """HMAC-SHA-256 under the key, in hexadecimal: the same values meet in joins, and only who has the key can guess."""
    MASK = "mask"
    """Stars, but for the last four of at least eight characters."""
    ENCRYPT = "encrypt"
    """AES-SIV under the key, in Base64: the same values give the same text, and who has the key reads it again."""
