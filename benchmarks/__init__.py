"""Measured figures: each script prints tables and appends rows of JSON to results/."""
