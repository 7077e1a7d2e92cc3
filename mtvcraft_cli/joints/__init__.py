"""Frames to joints: finds the person, fills gaps, draws skeletons."""
