"""Features: what is measured once for each image."""
