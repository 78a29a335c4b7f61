"""Challenges: submissions made from records, checked, fixed, scored and audited; competitions and boards for organisers.

`submit` makes a zip; `check` finds what is wrong with any zip, also one made elsewhere; `score` is the challenge's own scoring;
`standings` shows the published board next to one's own scored submissions. `template` writes a card, `bundle` a Codabench
competition, `contest` a board over many submissions. Nothing here imports torch, ray or mlflow unless a submission is made.
"""
