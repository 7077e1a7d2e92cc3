"""From where weights are published to this machine: listed, resumed, verified. Nothing else uses the network.

`plan` says what a name stands for, `hub`, `ranges` and `package` each fetch from one kind of place, `run` does several
at once, `adopt` takes what the user has, `convert` turns files of torch into safetensors.
"""
