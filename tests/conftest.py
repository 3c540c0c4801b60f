"""What holds for every test: nothing is timed."""

from __future__ import annotations

from hypothesis import settings

# The machine may be busy; how long an example takes says nothing of what is right.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
