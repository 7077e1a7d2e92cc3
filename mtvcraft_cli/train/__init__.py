"""The same rooms walked with gradients: one file per thing that is trained."""
