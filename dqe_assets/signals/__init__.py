"""Signals: values of samples that were computed elsewhere, side by side with those of the platform."""
