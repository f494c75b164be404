"""Joint generative and contrastive learning for unsupervised person re-identification, on Ray."""

__version__ = "0.1.0"
