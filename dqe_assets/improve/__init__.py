"""Better captions: judged, asked for again, and the best of each sample."""
