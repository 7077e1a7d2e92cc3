"""Motion of one's own: whatever people have becomes joints before a camera, and what was assumed is said."""
