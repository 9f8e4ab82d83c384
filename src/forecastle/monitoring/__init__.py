"""What was promised against what came: journal, outcomes, drift, metrics, alerts."""
