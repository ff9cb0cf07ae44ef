"""The sum of powers in sixteen lanes."""

from collections.abc import Sequence


def power_sum(values: Sequence[float], power: int, shift: float) -> float:
    """Add value by value to its lane, then the second half of the lanes to the first."""
    lanes = [0.0] * 16
    for index, value in enumerate(values):
        distance = value - shift
        lanes[index % 16] += distance * distance if power == 2 else distance
    while len(lanes) > 1:
        half = len(lanes) // 2
        lanes = [low + high for low, high in zip(lanes[:half], lanes[half:], strict=True)]
    return lanes[0]
