"""Bodies, renderers and the projections that guide the generator to a new view."""
