"""Fetching images from the web: which addresses, how fast, how often, and what became of each URL."""
