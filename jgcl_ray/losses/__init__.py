"""Loss terms: pure functions of named inputs, one file a term; joint.py joins them."""
