"""Many animations in one go: tables of jobs, one after the other or on a Ray cluster, each ended exactly once."""
