"""How the weights that the package ships are made of rendered people alone."""
