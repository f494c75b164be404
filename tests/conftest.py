"""Beside it: helper modules that tests in any folder import by name."""
