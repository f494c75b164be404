"""Images: data sets, loading, sampling, and the rendered walkers."""
