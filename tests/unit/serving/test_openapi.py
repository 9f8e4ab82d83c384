"""The service under all its OpenAPI document allows, and much that it does not: no answer is a fault."""

from __future__ import annotations

import warnings
from contextlib import suppress

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import CHECKS, load_all_checks

from forecastle.serving.app import create_app

load_all_checks()
SOUND = [
    CHECKS.get_one(name)
    for name in (
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_schema_conformance",
    )
]
FEW = settings(
    max_examples=5,
    deadline=None,
    database=None,
    derandomize=True,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)
KNOWN = {"task": "nyc-temperature", "series_id": "JFK"}


@pytest.fixture
def document(filled, task, clock):
    settings = filled.model_copy(update={"hosts": "testserver"})  # as Schemathesis calls it
    app = create_app(settings, [task], clock, poll_every=3600)
    return schemathesis.openapi.from_asgi("/openapi.json", app)


@pytest.mark.filterwarnings("ignore")
def test_whatever_is_asked_is_answered_as_the_document_promises(document) -> None:
    operations = [one.ok() for one in document.get_all_operations()]
    assert {one.method for one in operations} == {"get", "post"} and len(operations) >= 12
    statuses: dict[str, set[int]] = {}
    for operation in operations:
        names = {one.name for one in operation.path_parameters}
        known = {name: KNOWN[name] for name in names}
        for mode in schemathesis.GenerationMode:
            strategies = [operation.as_strategy(mode)]
            if names and (mode is schemathesis.GenerationMode.POSITIVE or operation.body):
                strategies.append(operation.as_strategy(mode, path_parameters=known))
            for strategy in strategies:

                @FEW
                @given(case=strategy)
                def ask(case) -> None:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        answer = case.call()
                    statuses.setdefault(operation.label, set()).add(answer.status_code)
                    case.validate_response(answer, checks=SOUND)

                with suppress(Unsatisfiable):  # nothing can be wrong where nothing can be said
                    ask()
    bodies = ("POST /v1/tasks/{task}/predict", "POST /v1/tasks/{task}/observations")
    assert [name for name, found in statuses.items() if 200 not in found and name not in bodies] == []
    assert all({404, 422} <= statuses[name] for name in bodies)
