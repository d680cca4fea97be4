"""Models with their weights: image classifiers, text encoders, detectors."""
