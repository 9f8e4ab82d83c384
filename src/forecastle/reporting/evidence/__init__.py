"""The evidence: facts read from what ran, room by room. To add some, write a function and name it in GATHERERS."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from forecastle.errors import ForecastleError
from forecastle.reporting.evidence import appendix, data, delivery, models, monitoring, pictures, problem, results
from forecastle.reporting.facts import Fact, Facts, Found, plain
from forecastle.reporting.scene import Scene

GATHERERS: tuple[Callable[[Scene], Found], ...] = (
    *(problem.title, problem.problem),
    *(data.extraction, data.gate, data.transformation, data.profile, data.storage),
    *(models.dagshub, models.experiment, models.registered),
    *(delivery.workflow, delivery.containers),
    *(monitoring.metrics, monitoring.dashboard, monitoring.rules),
    *(results.model, results.system, results.health, results.studies),
    *(appendix.locations, appendix.decisions, appendix.appendix),
    pictures.pictures,
)


def gather(scene: Scene) -> Facts:
    """Read every fact. A store that does not answer leaves out what it alone knows, and that is said: see "
    "``faults``."""
    faults: list[dict[str, str]] = []

    def found() -> Iterator[tuple[str, Fact]]:
        for gatherer in GATHERERS:
            try:
                yield from gatherer(scene)
            except ForecastleError as error:
                faults.append({"about": gatherer.__name__, "error": str(error).splitlines()[0]})
        yield "faults", Fact(faults, "what did not answer while the facts were read")

    hide = {str(scene.settings.home.resolve()): "data", str(scene.settings.home): "data"}
    if scene.repository:
        hide[f"{scene.repository}/"] = ""
    return plain(found(), hide)
