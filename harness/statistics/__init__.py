"""How well scores agree with people, how sure that is, and whether one model is better than another."""
