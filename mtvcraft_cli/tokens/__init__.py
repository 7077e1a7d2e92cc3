"""Joints to motion tokens and back.

`normalise` scales joints and cuts them into windows, `tokenizer` is the VQ-VAE 4DMoT, `tokenise` walks a whole clip
through both, `report` says how well that went, and `files` keeps the result.
"""
