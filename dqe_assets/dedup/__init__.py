"""Duplicates: images that are the same, look the same or show the same."""
