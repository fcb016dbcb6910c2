"""Profiles of sensors."""

from __future__ import annotations

from litestar import Controller, delete, get, post
from litestar.params import FromPath
from litestar.types import ASGIApp

from ocean_core.api.access import origin_of, principal_of
from ocean_core.api.answer import answer
from ocean_core.api.body import json_body
from ocean_core.api.input import decode_body
from ocean_core.api.openapi import answers, operation, query_parameter
from ocean_core.api.paging import LIMIT, after_parameter, page_limit, query_texts
from ocean_core.api.record_schemas import PROFILE_OPERATION, READ_PROBLEMS, WRITE_PROBLEMS
from ocean_core.api.services import AnyRequest, path_text, services_of
from ocean_core.model.errors import UnknownRecordError
from ocean_core.service.accounts.profiles import (
    NewProfile,
    Profile,
    ProfileDeleted,
    ProfileList,
    ProfileStored,
)

_SENSOR = query_parameter("sensor_id", "Only those of this sensor.", "press-01")


class ProfilesController(Controller):
    """Routes of /api/ocean/profiles."""

    path = "/api/ocean/profiles"
    tags = ("Profiles",)

    @post(
        "/store",
        status_code=200,
        opt={"access": "admin"},
        operation_class=PROFILE_OPERATION,
        responses=answers(ProfileStored, *WRITE_PROBLEMS),
        summary="Store a profile",
    )
    async def store(self, request: AnyRequest) -> ASGIApp:
        """Store a profile in place of one of the same id."""
        services = services_of(request)
        query_texts(request)
        async with json_body(request, services) as body:
            return answer(await services.profiles.put(decode_body(body, NewProfile)))

    @get(
        opt={"access": "read"},
        operation_class=operation(LIMIT, after_parameter("press-01-cal"), _SENSOR),
        responses=answers(ProfileList, *READ_PROBLEMS),
        summary="Stored profiles",
    )
    async def profiles(self, request: AnyRequest) -> ASGIApp:
        """Return a page of profiles by id; a key for some sensors sees only theirs."""
        texts = query_texts(request, "limit", "after", "sensor_id")
        profiles, limit = services_of(request).profiles, page_limit(texts)
        may_touch = principal_of(request).may_touch
        after = texts.get("after", "")
        # A page that has nothing for a limited key is passed over: its cursor names others' profiles.
        while True:
            page = await profiles.page(texts.get("sensor_id"), after, limit)
            seen = [profile for profile in page.profiles if may_touch(profile.sensor_id)]
            if seen or page.next is None:
                break
            after = page.next
        if len(seen) < len(page.profiles) and page.next is not None:
            page.next = seen[-1].profile_id
        page.profiles = seen
        return answer(page)

    @get(
        "/{profile_id:str}",
        opt={"access": "read"},
        responses=answers(Profile, *READ_PROBLEMS, 404),
        summary="A profile",
    )
    async def profile(self, request: AnyRequest, profile_id: FromPath[str]) -> ASGIApp:
        """Return a profile as it was stored."""
        profile = await services_of(request).profiles.get(path_text(profile_id))
        if not principal_of(request).may_touch(profile.sensor_id):
            # Not even that it exists is of any concern to a key for other sensors.
            raise UnknownRecordError("Profile not found")
        return answer(profile)

    @delete(
        "/{profile_id:str}",
        status_code=200,
        opt={"access": "admin"},
        responses=answers(ProfileDeleted, *READ_PROBLEMS, 404, 507),
        summary="Delete a profile",
    )
    async def delete_profile(self, request: AnyRequest, profile_id: FromPath[str]) -> ASGIApp:
        """Delete a profile."""
        profiles = services_of(request).profiles
        return answer(await profiles.delete(path_text(profile_id), origin_of(request)))
