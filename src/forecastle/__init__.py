"""forecastle turns a live API into forecasts that can be trusted.

In a notebook: ``import forecastle as fc``, then ``fc.load_task``, ``fc.backtest``, ``fc.train`` and ``fc.forecast``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forecastle.notebook import backtest, forecast, load_task, train

__all__ = ["__version__", "backtest", "forecast", "load_task", "train"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import what a notebook asks for when it asks: the command line needs none of it to answer."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from forecastle import notebook

    return getattr(notebook, name)
