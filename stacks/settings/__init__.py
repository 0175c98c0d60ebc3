"""The settings of an environment: one TOML file, validated as a whole before synthesis.

>>> from stacks import settings
>>> settings.load("local").owner
'video-router-local'
"""

from stacks.settings.dataset import Dataset, is_folder, is_s3, split_s3_uri
from stacks.settings.endpoint import Endpoint
from stacks.settings.fields import PROJECT, is_inside
from stacks.settings.loading import ENVIRONMENTS, Problem, SettingsError, load, locate, shown
from stacks.settings.network import Network, NetworkEndpoints
from stacks.settings.operations import (
    Alarms,
    Budget,
    Checks,
    Encryption,
    Pack,
    Security,
)
from stacks.settings.types import DEFAULT_QUALIFIER, MAXIMUM_FULL_NAME, STACKS, Settings

__all__ = [
    "DEFAULT_QUALIFIER",
    "ENVIRONMENTS",
    "MAXIMUM_FULL_NAME",
    "PROJECT",
    "STACKS",
    "Alarms",
    "Budget",
    "Checks",
    "Dataset",
    "Encryption",
    "Endpoint",
    "Network",
    "NetworkEndpoints",
    "Pack",
    "Problem",
    "Security",
    "Settings",
    "SettingsError",
    "is_folder",
    "is_inside",
    "is_s3",
    "load",
    "locate",
    "shown",
    "split_s3_uri",
]
