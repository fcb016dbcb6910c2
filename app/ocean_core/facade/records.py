"""What is kept beside readings: metadata, profiles, records of sensors, keys, the audit log."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec import UNSET, UnsetType

from ocean_core.facade.base import (
    API,
    LISTED,
    Json,
    Moment,
    Part,
    given,
    moment_json,
    segment,
)
from ocean_core.model import limits


class Metadata(Part):
    """JSON values under keys, and profiles."""

    def set_metadata(self, key: str, value: Any, *, ttl_s: float | None = None) -> None:  # noqa: ANN401 - JSON
        """Store anything that JSON has, in place of what was there; it ends after ``ttl_s``.

        Raises InvalidInputError for keys above 256 bytes and values above 64 KiB.
        """
        body = {"value": value, **given(ttl_s=ttl_s)}
        self._post(f"/metadata/{segment(key)}", body, repeatable=True)

    def get_metadata(self, key: str) -> Any:  # noqa: ANN401 - JSON
        """Return the value. Raises UnknownRecordError, also once its time has passed."""
        return self._get(f"/metadata/{segment(key)}")["value"]

    def delete_metadata(self, key: str) -> None:
        """Delete a key. Raises UnknownRecordError."""
        self._api.call("DELETE", f"{API}/metadata/{segment(key)}")

    def list_metadata(self, prefix: str = "", *, limit: int = LISTED) -> list[Json]:
        """Return key, value, updated_at (and expires_at if it ends) by key."""
        return self._list("/metadata", "metadata", limit, given(prefix=prefix or None))

    def store_profile(
        self,
        profile_id: str,
        sensor_id: str,
        metadata: Json | None = None,
        *,
        timestamp: Moment | None = None,
    ) -> None:
        """Store a profile in place of one of the same id; ``metadata`` is a dict."""
        body = given(
            profile_id=profile_id,
            sensor_id=sensor_id,
            metadata=metadata or {},
            timestamp=moment_json(timestamp),
        )
        self._post("/profiles/store", body, repeatable=True)

    def get_profile(self, profile_id: str) -> Json:
        """Return profile_id, sensor_id, timestamp, metadata. Raises UnknownRecordError."""
        return dict(self._get(f"/profiles/{segment(profile_id)}"))

    def list_profiles(self, *, sensor_id: str | None = None, limit: int = LISTED) -> list[Json]:
        """Return profiles by id, of one sensor or of all."""
        return self._list("/profiles", "profiles", limit, {"sensor_id": sensor_id})

    def delete_profile(self, profile_id: str) -> None:
        """Delete a profile. Raises UnknownRecordError."""
        self._api.call("DELETE", f"{API}/profiles/{segment(profile_id)}")


class SensorRecords(Part):
    """What people say about sensors."""

    def get_sensor(self, sensor_id: str) -> Json:
        """Return display_name, unit, tags, note, aliases, and what it has sent.

        Any name that it has or had works. Raises UnknownSensorError.
        """
        return dict(self._get(f"/sensors/{segment(sensor_id)}"))

    def update_sensor(
        self,
        sensor_id: str,
        *,
        display_name: str | UnsetType | None = UNSET,
        unit: str | UnsetType | None = UNSET,
        tags: dict[str, str] | UnsetType | None = UNSET,
        note: str | UnsetType | None = UNSET,
    ) -> Json:
        """Change what is given and return the record; None empties. ``tags`` are replaced whole.

        Also for a sensor that has sent nothing yet. ``display_name`` is the name for people, the
        ``--name`` of the command; ``rename_sensor`` changes the id.
        """
        fields = {"display_name": display_name, "unit": unit, "tags": tags, "note": note}
        change = {name: value for name, value in fields.items() if value is not UNSET}
        path = f"{API}/sensors/{segment(sensor_id)}"
        return dict(self._api.call("PATCH", path, body=change))

    def rename_sensor(self, sensor_id: str, new_id: str) -> Json:
        """Call a sensor otherwise, for all its readings; the old name still works.

        Raises ConflictError if something is stored under the new name.
        """
        return dict(self._post(f"/sensors/{segment(sensor_id)}/rename", {"to": new_id}))

    def forget_sensor(self, sensor_id: str) -> Json:
        """Forget a sensor and all its readings so far. There is no way back.

        Returns how many readings and events went; ``ledger`` counts them.
        """
        body = {"confirm": sensor_id}
        return dict(self._post(f"/sensors/{segment(sensor_id)}/forget", body))

    def ledger(self, *, sensor_id: str | None = None, limit: int = LISTED) -> list[Json]:
        """Return what was not, or is no longer, stored: sensor_id, class, count, updated_at.

        Classes are ``duplicate``, ``refused`` with the code of the error, ``forgotten``, ``evicted``.
        An empty sensor_id stands for what belongs to no sensor that is known.
        """
        return self._list("/ledger", "sensors", limit, {"sensor_id": sensor_id})

    def ledger_totals(self) -> Json:
        """Return ``totals`` of all sensors by class, with ``stored``, and ``approximate``.

        The latter is None as long as all of it is exact; else it tells between which moments
        (since, until) refusals may be missing, after how many unclean stops.
        """
        page = self._get("/ledger", {"limit": 1})
        return {name: page[name] for name in ("totals", "approximate")}


class Quarantine(Part):
    """Nanogridata frames that were refused."""

    def quarantined_frames(self, *, outcome: str | None = None, limit: int = LISTED) -> list[Json]:
        """Return refused frames, newest first, refused for ``outcome`` (such as E_KEY) or for all."""
        return self._list("/quarantine", "frames", limit, {"outcome": outcome})

    def quarantined_frame(self, frame_id: int) -> Json:
        """Return a refused frame with bytes (hex), header, meaning. Raises UnknownRecordError."""
        return dict(self._get(f"/quarantine/{frame_id}"))

    def retry_frames(
        self,
        ids: Iterable[int] | None = None,
        *,
        outcome: str | None = None,
        any_time: bool = False,
    ) -> Json:
        """Try refused frames again: those with these ids, of an outcome, or without both all.

        Each is stored once, as of its arrival, or stays with its new reason. Returns ``stored``,
        ``duplicate``, ``kept`` and ``frames``, one entry for each. ``any_time`` leaves out the
        checks of time. Raises InvalidInputError for both ids and an outcome.
        """
        answer: Json = {"stored": 0, "duplicate": 0, "kept": 0, "frames": []}
        for order in _frame_orders(ids, outcome):
            after: int | None = 0
            while after is not None:
                # Twice is as good as once: what was stored is in quarantine no more.
                body = {**order, "any_time": any_time, "after": after}
                page = self._post("/quarantine/retry", body, repeatable=True)
                answer = {name: value + page[name] for name, value in answer.items()}
                after = page["next"]
        return answer

    def forget_frames(
        self, ids: Iterable[int] | None = None, *, outcome: str | None = None
    ) -> list[int]:
        """Delete refused frames: those with these ids, of an outcome, or without both all.

        Returns the ids of those that were there. There is no way back. Raises InvalidInputError for
        both ids and an outcome.
        """
        gone: list[int] = []
        for order in _frame_orders(ids, outcome):
            after: int | None = 0
            while after is not None:
                body = {**order, "after": after}
                # Twice is as good as once, but for the ids of what an answer that was lost told.
                page = self._post("/quarantine/forget", body, repeatable=True)
                gone += page["ids"]
                after = page["next"]
        return gone

    def forget_frame(self, frame_id: int) -> None:
        """Delete a refused frame. Raises UnknownRecordError."""
        self._api.call("DELETE", f"{API}/quarantine/{frame_id}")


def _frame_orders(ids: Iterable[int] | None, outcome: str | None) -> list[Json]:
    """Return the bodies of requests about frames, each of which one request takes."""
    if ids is None:
        return [given(outcome=outcome, all=True if outcome is None else None)]
    wanted = list(ids)
    size = limits.QUARANTINE_RETRIED_MAX
    return [
        given(ids=wanted[at : at + size], outcome=outcome) for at in range(0, len(wanted), size)
    ]


class Administration(Part):
    """Access keys and the audit log."""

    def create_key(
        self,
        name: str,
        scopes: str | Iterable[str],
        *,
        sensors: str | None = None,
        rate: int | None = None,
        expires: Moment | None = None,
        user_id: str | None = None,
    ) -> Json:
        """Make an access key; ``key`` of the answer is shown here and never again.

        ``scopes`` are of ingest, read, admin: one as text, or several; ``sensors`` is a pattern such as ``press-*``;
        ``rate`` readings per second; ``expires`` a moment, or a time from now such as ``"90d"``;
        ``user_id`` whose account pays for what comes in with it. Raises ConflictError if an active
        key has the name.
        """
        body = given(
            name=name,
            scopes=[scopes] if isinstance(scopes, str) else list(scopes),
            sensors=sensors,
            rate=rate,
            expires=moment_json(expires),
            user_id=user_id,
        )
        return dict(self._post("/keys", body))

    def list_keys(self, *, limit: int = LISTED) -> list[Json]:
        """Return keys by age, also expired and revoked ones, without the keys themselves."""
        return self._list("/keys", "keys", limit)

    def revoke_key(self, key_id: str) -> None:
        """Let a key count no longer, from before this returns. Raises UnknownRecordError."""
        self._api.call("DELETE", f"{API}/keys/{segment(key_id)}")

    def audit(self, *, act: str | None = None, limit: int = LISTED) -> list[Json]:
        """Return administrative acts, newest first: created_at, actor, address, act, subject."""
        return self._list("/audit", "entries", limit, {"act": act})
