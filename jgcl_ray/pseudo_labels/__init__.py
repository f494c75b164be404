"""Pseudo labels, once an epoch: features of all images, their sparse distances, clusters, quality."""
