"""How good an encoder is: the Market-1501 protocol."""
