"""Better captions: judging them, asking for them again, and choosing the best one of each sample."""
