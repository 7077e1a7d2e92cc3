"""Files to frames and frames to files: the only room that opens or writes pictures and clips."""
