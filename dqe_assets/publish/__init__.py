"""Publishing: the samples that a condition chooses, as files that others train on."""
