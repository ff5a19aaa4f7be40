"""How many examples a property gets: a few in every run, many where CLTHEORY_PROPERTIES asks."""

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "quick",
    max_examples=10,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("thorough", settings.get_profile("quick"), max_examples=500)
settings.load_profile(os.environ.get("CLTHEORY_PROPERTIES", "quick"))
