"""What every package may use: errors, progress, signals."""
