"""Training sets made of a user's own videos and motion: `mtvcraft train prepare` writes them, the stages read them."""
