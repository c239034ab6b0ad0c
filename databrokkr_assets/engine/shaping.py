"""What becomes of a source's columns before anything is stored: masked, renamed, told where they came from.

Masking stands between what a source gives and what it compares with its cursor, so neither a dataset nor a cursor ever
holds a value in the clear.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from duckdb import DuckDBPyConnection

from databrokkr_assets.core.errors import DataError, SpecError, did_you_mean
from databrokkr_assets.core.names import literal, quoted
from databrokkr_assets.core.plugins import missing_extra
from databrokkr_assets.core.ports import Reject
from databrokkr_assets.core.privacy import Masking

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESSIV

LOAD_ID, SOURCE, POSITION = "_load_id", "_source", "_position"
"""The columns that tell where a row came from; a connector that knows the last two gives them itself."""

PROVENANCE = (LOAD_ID, SOURCE, POSITION)

_BLOCK = 64
_INNER, _OUTER = "databrokkr_inner", "databrokkr_outer"


@dataclass(frozen=True)
class Shape:
    """How the columns that come become those of the dataset; `key` is the secret of hashing and encryption."""

    masked: Mapping[str, Masking] = field(default_factory=dict)
    key: str = field(default="", repr=False)
    rename: Mapping[str, str] = field(default_factory=dict)
    provenance: bool = False

    def masking(self, duck: DuckDBPyConnection, query: str) -> str:
        """The rows of `query`, masked; a dropped column is there and NULL. Raises SpecError for an unknown column."""
        if not self.masked:
            return query
        self._prepare(duck)
        names = _known(duck.sql(query).columns)
        changed = []
        for name, how in self.masked.items():
            column = _found(name, names, "masked")
            changed.append(f"{_masked(quoted(column), how)} AS {quoted(column)}")
        return f"SELECT * REPLACE ({', '.join(changed)}) FROM ({query})"

    def finishing(self, duck: DuckDBPyConnection, query: str, source: str, load_id: str) -> str:
        """The masked rows as they are stored: columns dropped, renamed, and those that tell where a row came from."""
        if not (self.masked or self.rename or self.provenance):
            return query
        given = duck.sql(query).columns
        kept = [f"{quoted(name)} AS {quoted(new)}" for name, new in self._stored(given)]
        if self.provenance:
            told = {LOAD_ID: literal(load_id), SOURCE: literal(source), POSITION: "NULL::VARCHAR"}
            kept += [f"{value} AS {quoted(name)}" for name, value in told.items() if name not in given]
        return f"SELECT {', '.join(kept)} FROM ({query})"

    def as_given(self, stored: Sequence[str]) -> str:
        """The select list that shows stored columns under the source's names again; dropped ones are NULL."""
        names = {new: name for name, new in self.rename.items()}
        shown = [f"{quoted(name)} AS {quoted(names.get(name, name))}" for name in stored]
        return ", ".join([*shown, *(f"NULL AS {quoted(name)}" for name in self._dropped())])

    def withheld(self, rejects: Iterator[Reject]) -> Iterator[Reject]:
        """Rejected rows without their content, where a column of it is to be masked."""
        if not self.masked:
            return rejects
        why = "the row is withheld, because this source has masked columns"
        return (replace(one, payload="", reason=f"{one.rule}: {why}") for one in rejects)

    def _dropped(self) -> list[str]:
        return [name for name, how in self.masked.items() if how is Masking.DROP]

    def _stored(self, given: Sequence[str]) -> Iterator[tuple[str, str]]:
        """The columns that are kept, each with its name in the dataset."""
        names = _known(given)
        dropped = {name.lower() for name in self._dropped()}
        new_names = {name.lower(): new for name, new in self.rename.items()}
        for old, new in self.rename.items():
            if old.lower() in names and new.lower() in names and new.lower() not in new_names:
                raise SpecError(f'"{old}" cannot be called "{new}": that column comes too', mend="choose another name")
            if new.lower() not in names:
                _found(old, names, "renamed")
        for name in given:
            if name.lower() not in dropped:
                yield name, new_names.get(name.lower(), name)

    def _prepare(self, duck: DuckDBPyConnection) -> None:
        """Make the functions and variables that masking uses; the key never stands in SQL, which errors quote."""
        if Masking.HASH in self.masked.values():
            secret = self.key.encode()
            secret = hashlib.sha256(secret).digest() if len(secret) > _BLOCK else secret
            padded = secret.ljust(_BLOCK, b"\0")
            for name, byte in ((_INNER, 0x36), (_OUTER, 0x5C)):
                duck.execute(f"SET VARIABLE {name} = ?", [bytes(one ^ byte for one in padded)])
        if Masking.ENCRYPT in self.masked.values():
            cipher = _cipher(self.key)
            duck.create_function("databrokkr_encrypt", lambda text: _encrypted(cipher, text), ["VARCHAR"], "VARCHAR")


def decrypted(text: str, key: str) -> str:
    """What `encrypt` made unreadable. Raises DataError when the key is another one, or the text was changed."""
    from cryptography.exceptions import InvalidTag

    try:
        return _cipher(key).decrypt(base64.b64decode(text, validate=True), None).decode()
    except (InvalidTag, ValueError) as error:
        raise DataError(
            "the text was not encrypted with this key, or was changed since", mend="use the `masking_key` of its source"
        ) from error


def _masked(column: str, how: Masking) -> str:
    text = f"CAST({column} AS VARCHAR)"
    match how:
        case Masking.DROP:
            return "NULL"
        case Masking.HASH:  # HMAC, RFC 2104
            inner = f"sha256(getvariable('{_INNER}') || encode({text}))"
            return f"sha256(getvariable('{_OUTER}') || unhex({inner}))"
        case Masking.MASK:
            stars = f"repeat('*', length({text}) - 4) || right({text}, 4)"
            return f"CASE WHEN length({text}) < 8 THEN repeat('*', length({text})) ELSE {stars} END"
        case Masking.ENCRYPT:
            return f"databrokkr_encrypt({text})"


def _cipher(key: str) -> AESSIV:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESSIV
    except ImportError as error:
        raise missing_extra("privacy", "`encrypt`") from error
    return AESSIV(hashlib.sha512(key.encode()).digest())


def _encrypted(cipher: Any, text: str) -> str:
    # AES-SIV refuses an empty text, which it would tell from no other anyway.
    return base64.b64encode(cipher.encrypt(text.encode(), None)).decode() if text else ""


def _known(names: Sequence[str]) -> dict[str, str]:
    return {name.lower(): name for name in names}


def _found(name: str, names: Mapping[str, str], what: str) -> str:
    if name.lower() not in names:
        raise SpecError(
            f'the column "{name}" is to be {what}, but does not come', mend=did_you_mean(name, names.values())
        )
    return names[name.lower()]
