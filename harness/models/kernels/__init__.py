"""Faster kernels for the same products: prepared weights, oneDNN, Winograd convolution, SSIM maps."""
