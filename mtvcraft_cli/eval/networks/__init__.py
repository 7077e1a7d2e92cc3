"""The networks whose features are compared: what they are, and how their published files are read."""
