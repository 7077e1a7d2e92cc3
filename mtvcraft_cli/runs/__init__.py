"""The stages of a run, each with what is kept of it; `pipeline.py` calls them in order."""
