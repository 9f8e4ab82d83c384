"""forecastle turns a live API into forecasts that can be trusted."""

__version__ = "0.1.0"
