"""Basics for all packages: errors, findings, logging, progress, signals, text output, cache folder."""
