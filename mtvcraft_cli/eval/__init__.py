"""Two videos -> numbers: one file per metric, one per bench."""
