"""All edits that tests cut short, by name."""

from __future__ import annotations

from tests.crash.keras_scenes import KERAS
from tests.crash.tensorflow_scenes import TENSORFLOW

SCENES = TENSORFLOW | KERAS
