"""From a request to a record: training, scoring, measuring, comparing and verifying."""
