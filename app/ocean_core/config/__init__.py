"""Settings: defaults, then the TOML file, then OCEAN_* variables, then flags that were typed."""

from ocean_core.config.load import LoadedSettings, load_settings
from ocean_core.config.settings import Settings

__all__ = ["LoadedSettings", "Settings", "load_settings"]
