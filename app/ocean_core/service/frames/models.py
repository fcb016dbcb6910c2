"""The models of devices: what is accepted of each, what they are called, how they are routed."""

from __future__ import annotations

from typing import Final

import msgspec

from ocean_core.config.settings import NanogridataSettings
from ocean_core.model import limits
from ocean_core.pipeline.routing import Profile
from ocean_core.protocol.nanogridata.frame import KNOWN_MODELS, CustomModel, Options, Policy
from ocean_core.service.frames.models_file import BUILT_IN, ModelsFile

_OPTION_NAMES: Final = tuple(field.name for field in msgspec.structs.fields(Options))


class Models(Policy):
    """Everything that depends on the model of a frame.

    Built once at start; a change of the models file takes effect with the next start.
    """

    def __init__(self, settings: NanogridataSettings, described: ModelsFile | None = None) -> None:
        """Take the options of all models from the settings, and what differs from the models file."""
        entries = (described or ModelsFile()).models
        values = msgspec.structs.asdict(settings)
        everywhere = Options(**{name: values[name] for name in _OPTION_NAMES})
        self._known = KNOWN_MODELS | entries.keys()
        self._custom = {
            model_id: entry.custom for model_id, entry in entries.items() if entry.custom
        }
        # One place for each id, so that looking up is indexing.
        self._options = [everywhere] * limits.MODELS_MAX
        self._profiles = [
            BUILT_IN.get(model_id) or Profile(model_id) for model_id in range(limits.MODELS_MAX)
        ]
        for model_id, entry in entries.items():
            self._options[model_id] = msgspec.structs.replace(everywhere, **entry.options)
            self._profiles[model_id] = entry.profile
        self._names = [f"{profile.model} {profile.name}" for profile in self._profiles]

    def options(self, model_id: int) -> Options:
        """Return what is accepted of a model; the settings alone decide if nobody described it."""
        return self._options[model_id]

    def is_known(self, model_id: int) -> bool:
        """Whether a model is one of the protocol's own, or in the models file."""
        return model_id in self._known

    def custom(self, model_id: int) -> CustomModel | None:
        """Return how a model's payloads read, None if that is built in or was not described."""
        return self._custom.get(model_id)

    def profile(self, model_id: int) -> Profile:
        """Return how frames of a model are routed; a generic profile for those nobody described."""
        return self._profiles[model_id]

    def name(self, model_id: int) -> str:
        """Return how people call a model, such as ``0x10 pressure_v1``."""
        return self._names[model_id]

    @property
    def level_min(self) -> int:
        """The lowest security level that any model that is let in may use."""
        return min(options.min_level for options in self._let_in())

    @property
    def age_s_max(self) -> int:
        """How old a frame of any model may be, seconds; so long frames are to be remembered."""
        return max(options.max_age_s for options in self._let_in())

    @property
    def future_s_max(self) -> int:
        """How far a frame of any model may be ahead, seconds."""
        return max(options.future_tolerance_s for options in self._let_in())

    @property
    def window_s(self) -> int:
        """For how long a frame may be sent again, and is to be remembered, seconds."""
        # Whole seconds are compared, and an arrival is finer: one more.
        return self.age_s_max + self.future_s_max + 1

    def _let_in(self) -> list[Options]:
        return [
            options
            for model_id, options in enumerate(self._options)
            if model_id in self._known or options.unknown_model == "accept"
        ]
