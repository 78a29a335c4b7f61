"""Faster ways to compute the same products: prepared weights, oneDNN, Winograd."""
