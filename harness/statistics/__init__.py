"""Statistics: agreement of scores with MOS or DMOS, confidence intervals, and tests between models."""
