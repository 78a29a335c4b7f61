"""Ensembles: which members, on which scales, with which weights; fitted on a validation part, judged by what was not fitted.

`run` gathers the members' scores, searches (Ray Tune), assesses the blends and writes the card that is then a model.
"""
