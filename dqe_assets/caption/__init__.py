"""Captions: what models say of the images."""
