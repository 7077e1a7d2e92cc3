"""What a command was asked to do, checked before the long work: usage, then weights, then inputs, then fit.

A job is what the user said; a prepared job is what is known about it without running a model. `--dry-run` shows the
one, the pipeline takes the same one. Rooms are imported where they are asked, so that a wrong word is refused at once.
"""
