"""Which things a caption names that its image shows, and which it leaves out."""
