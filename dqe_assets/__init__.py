"""What is built: the stages, in the order in which data flows."""
