"""A part of the data that stands for all of it: codes of images, clusters of the codes, a share of each cluster."""
