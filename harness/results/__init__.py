"""The results of a run: folder, key, record, scores, report, tables and MLflow mirror."""
