"""Scores: how well captions fit images."""
