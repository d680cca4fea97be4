"""What a person wants to see of each asset in the UI: a preview, the figures, and a plot where it says more."""
