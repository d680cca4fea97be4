"""Concept frequency: how often the data shows what a model is asked about, and what follows from it."""
