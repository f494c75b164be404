"""Training: one batch (step.py), optimisers, precision; the epochs around them."""
