"""Images: decoding, accepted formats, headers, colour profiles, crop positions, encoding for external programs."""
