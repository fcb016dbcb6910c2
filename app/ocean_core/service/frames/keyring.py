"""All secrets of the box: from our own file, from files that settings name, from the environment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple

from ocean_core.model import limits
from ocean_core.model.errors import SecretError
from ocean_core.obs.clock import Clock
from ocean_core.obs.log import EventLog
from ocean_core.protocol.nanogridata.frame import Keyring, Secret
from ocean_core.protocol.nanogridata.secret import HmacSecret
from ocean_core.service.frames.key_file import FILE_NAME, Entry, read_entries
from ocean_core.service.frames.secret_source import (
    Found,
    Named,
    Place,
    files_of_setting,
    model_text,
    of_environment,
    others_may_read,
    read_secret_file,
)

_FINGERPRINT_LABEL: Final = b"ocean nanogridata fingerprint\0"


class Known(NamedTuple):
    """A secret that counts, with what people are told of it.

    ``origin`` is ``file``, ``setting`` or ``environment``, ``where`` names file or variable.
    Times are microseconds since 1970 UTC; ``until_us`` is set for the former one of a rotation.
    """

    place: Place
    name: str
    secret: bytes
    origin: str
    where: str
    created_us: int | None = None
    until_us: int | None = None

    def __repr__(self) -> str:
        """Tell what it is for, not what it is."""
        return f"Known({self.name})"

    @property
    def fingerprint(self) -> str:
        """Tells secrets apart: 32 bits of a hash, over a text that nothing else is hashed with.

        It says no more than any frame signed with the secret does.
        """
        return sha256(_FINGERPRINT_LABEL + self.secret).hexdigest()[:8]


class SecretStore(Keyring):
    """What signs frames, by model. Reading is for any thread; reload in one at a time.

    A secret that has expired stops at the next ``reload_if_changed``.
    """

    def __init__(
        self,
        data_dir: Path,
        secret_files: Sequence[str],
        environment: Mapping[str, str],
        clock: Clock,
        log: EventLog,
    ) -> None:
        """Read all secrets. Raises SecretError naming setting, variable or file."""
        self._path = data_dir / FILE_NAME
        self._clock = clock
        self._log = log
        self._fixed, named = of_environment(environment)
        self._named = [*files_of_setting(secret_files), *named]
        self._problem = ""
        self._version = 0
        self._by_model: dict[int, tuple[Secret, ...]] = {}
        self._doubtful: frozenset[Path] = frozenset()
        self._seen = self._signature()
        self._entries: list[Entry] = []
        self._others: list[Found] = []
        self._known: list[Known] = []
        self._take(read_entries(self._path), self._read_others())
        self._warn()

    def candidates(self, model_id: int) -> Sequence[Secret]:
        """Return the secrets for a model: those of groups, then its own; the newest first."""
        return self._by_model.get(model_id, ())

    @property
    def version(self) -> int:
        """Grows whenever the secrets that count have changed."""
        return self._version

    def has_any(self, model_id: int) -> bool:
        """Whether frames of a model can be proven."""
        return model_id in self._by_model

    def models_with_secrets(self) -> frozenset[int]:
        """Return the models whose frames can be proven."""
        return frozenset(self._by_model)

    def known(self) -> list[Known]:
        """Return the secrets that count, ordered by model and group."""
        return list(self._known)

    def check(self, entries: Iterable[Entry]) -> None:
        """Refuse what our file is about to hold if there were too many with the others then.

        Raises SecretError.
        """
        gathered(entries, self._others, self._path)

    def reload_if_changed(self) -> str:
        """Take over what changed; return what is wrong with a file, empty if nothing.

        What cannot be read or used is told once in the log, and all that was known goes on
        counting. Looks at the files' times only, as long as they are the same.
        """
        signature = self._signature()
        if signature != self._seen:
            # Remembered first, so that a broken file is tried once and not every time.
            self._seen = signature
            self._reload()
        elif any(entry.until_us is not None for entry in self._entries):
            self._take(self._entries, self._others)
        return self._problem

    def _reload(self) -> None:
        try:
            entries, others = read_entries(self._path), self._read_others()
            before = self._version
            self._take(entries, others)
        except SecretError as error:
            self._problem = error.detail
            self._log.warning("secrets.reload_failed", error=error.detail)
            return
        self._problem = ""
        if self._version != before:
            models = ",".join(map(model_text, sorted(self._by_model)))
            self._log.info("secrets.reloaded", secrets=len(self._known), models=models)
        self._warn()

    def _read_others(self) -> list[Found]:
        read = [
            Found(item.place, read_secret_file(item.path, item.where), item.origin, _where_of(item))
            for item in self._named
        ]
        return [*read, *self._fixed]

    def _take(self, entries: list[Entry], others: list[Found]) -> None:
        """Let these secrets count. Raises SecretError, then nothing has changed."""
        now_us = self._clock.now_us()
        # What has expired is gone for good, also if this machine's clock goes back.
        entries = [entry for entry in entries if entry.counts(now_us)]
        known = gathered(entries, others, self._path)
        self._entries, self._others = entries, others
        if known != self._known:
            self._by_model = _by_model(known)
            self._known = known
            self._version += 1

    def _signature(self) -> tuple[tuple[int, ...], ...]:
        found: list[tuple[int, ...]] = []
        for path in (self._path, *(item.path for item in self._named)):
            try:
                status = path.stat()
            except OSError as error:
                found.append((error.errno or 0,))
            else:
                found.append(
                    (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)
                )
        return tuple(found)

    def _warn(self) -> None:
        """Tell of files that others may read, each time one becomes so."""
        paths = (self._path, *(item.path for item in self._named))
        doubtful = frozenset(filter(others_may_read, paths))
        for path in sorted(doubtful - self._doubtful):
            self._log.warning(
                "secrets.file_doubtful",
                problem=f"{path}: other users may read the secret (chmod 600)",
            )
        self._doubtful = doubtful


def gathered(entries: Iterable[Entry], others: Iterable[Found], path: Path) -> list[Known]:
    """Return the secrets in the order they are tried, each once for the same devices of a model.

    Raises SecretError if there are more than may be.
    """
    known = [
        Known(
            entry.place,
            entry.name,
            entry.secret,
            "file",
            str(path),
            entry.created_us,
            entry.until_us,
        )
        for entry in sorted(entries, key=lambda entry: (entry.until_us is not None, -entry.number))
    ]
    known += [
        Known(
            found.place, f"{found.place} ({found.origin})", found.secret, found.origin, found.where
        )
        for found in others
    ]
    # Stable: groups before the model's own, within each the order from above.
    known.sort(key=lambda item: (item.place.model_id, not item.place.group, item.place.group))
    once: dict[tuple[int, str, bytes], Known] = {}
    for item in known:
        once.setdefault((item.place.model_id, item.place.sensors, item.secret), item)
    known = list(once.values())
    if len(known) > limits.SECRETS_MAX:
        raise SecretError(
            f"there are {len(known)} secrets, at most {limits.SECRETS_MAX} can be kept"
        )
    for model_id in {item.place.model_id for item in known}:
        number = sum(item.place.model_id == model_id for item in known)
        if number > limits.SECRETS_TRIED_MAX:
            raise SecretError(
                f"model {model_text(model_id)} has {number} secrets; for each of its frames at most "
                f"{limits.SECRETS_TRIED_MAX} are tried",
                hint="Put more devices into one group, or remove secrets that no device has any more.",
            )
    return known


def _by_model(known: Iterable[Known]) -> dict[int, tuple[Secret, ...]]:
    by_model: dict[int, list[Secret]] = {}
    for item in known:
        secret = HmacSecret(item.secret, item.name, item.place.sensors)
        by_model.setdefault(item.place.model_id, []).append(secret)
    return {model_id: tuple(secrets) for model_id, secrets in by_model.items()}


def _where_of(item: Named) -> str:
    return f"{item.path} ({item.where})"
