"""Sweeps: what is searched (space.py), trials on Ray (sweep.py, trial.py), their record, and what came of them."""
