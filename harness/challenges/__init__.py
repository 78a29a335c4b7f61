"""Challenges: making, checking, fixing, scoring and auditing submissions; competition bundles and leaderboards for organisers.

`submit` makes a zip; `submission_check` reports the defects of any zip; `score` is the challenge's own scoring; `standings`
shows the published leaderboard next to the user's scored submissions. `template` writes a card, `bundle` a Codabench
competition, `contest` ranks many submissions. Nothing here imports torch, ray or mlflow unless a submission is made.
"""
