"""What a run leaves behind: its folder, key, record, report and MLflow mirror."""
