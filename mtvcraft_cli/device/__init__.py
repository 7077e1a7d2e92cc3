"""What this machine has, and where each part of a model lives."""
