"""Networks: identity encoder, structure encoder and generator, discriminator; their weights on disk."""
