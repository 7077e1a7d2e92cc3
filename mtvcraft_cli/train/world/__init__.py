"""A small world of our own: procedural people, dances, stages and cameras, for training data and demo clips."""
