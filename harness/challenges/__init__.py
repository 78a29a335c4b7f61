"""Submissions to challenges: made from records, checked, mended, scored and audited.

`submit` makes a zip; `check` finds what is wrong with any zip, also one made elsewhere; `score` is the challenge's own scoring;
`board` shows the published standings beside one's own scored submissions. Nothing here imports torch, ray or mlflow unless a
submission is made.
"""
