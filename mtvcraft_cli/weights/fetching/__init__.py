"""From where weights are published to this machine: listed, resumed, verified. Nothing else uses the network.

`plan` says what a name stands for; `hub`, `ranges` and `package` each know one kind of place; `pieces` are fetched from
them, by `run`, several at once; `adopt` takes what the user has.
"""
