"""Ensembles: a weighted blend of models, found on a validation part and tested on other images; and tuning of models.

`build` reads the members' scores, searches (Ray Tune), assesses the blends and writes the card, which is then a model.
"""
