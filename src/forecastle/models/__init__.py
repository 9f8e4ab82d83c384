"""Models that earn their place: estimators, back-test, intervals, bundle, predictor, registry, promotion."""
