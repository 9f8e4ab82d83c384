"""Why the newest forecast of a series is what it is."""

from __future__ import annotations

from forecastle.errors import UserError
from forecastle.models.explanation import Explanation
from forecastle.models.explanation import explain as explained
from forecastle.run import Run
from forecastle.steps import champion, newest_origins


def explain(run: Run, series_id: str, horizon: int) -> Explanation:
    """Say what moves the champion's forecast of a series, so many steps ahead of the newest hour known.

    Raises UserError for a series that it has not learnt, and for more steps than it forecasts.
    """
    model = champion(run)
    if not 1 <= horizon <= model.recipe.steps:
        raise UserError(f"a horizon from 1 to {model.recipe.steps} steps", f"{horizon}", "Name one of those steps.")
    _, panel, examples = newest_origins(run, model)
    panel.rows_of(series_id)  # which names those there are
    if series_id not in model.recipe.series_ids:
        raise UserError(
            f"a series that model {model.version} has learnt: {', '.join(model.recipe.series_ids)}",
            f"{series_id!r}, which is forecast by the season before until a model is trained on it",
            "Train: forecastle run train --task FILE",
        )
    own = examples.take(examples.series == panel.series_ids.index(series_id))
    return explained(model.model, own, horizon)[0]
