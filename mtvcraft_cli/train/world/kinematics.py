"""Bones to joints and back, for figures too: as the rest of the program does it."""

from typing import TypeAlias

from mtvcraft_cli.joints.turns import Turns, forward, turns_of, unit

Number: TypeAlias = int | float

__all__ = ["Number", "Turns", "forward", "turns_of", "unit"]
