"""How the mesh estimator's weights are made: rendered walkers, pasted into ever new pictures, and the losses."""
