"""The parts that every stage is built from."""
