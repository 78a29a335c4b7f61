"""Decoding images, reading their headers, and where crops lie."""
