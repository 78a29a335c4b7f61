"""Cards: what a model, a dataset or a challenge is, as data."""
