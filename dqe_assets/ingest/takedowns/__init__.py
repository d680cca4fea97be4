"""What is to be taken down: the lists, what they match, and what is remembered of it."""
