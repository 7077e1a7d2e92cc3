"""Names to files to tensors: `locate` finds checkpoints on this machine, `read` opens them."""
