"""GitHub's comments: one comment of ours on a pull request, made once and brought up to date in place.

What is documented at https://docs.github.com/en/rest/issues/comments. Ours is known by who wrote it and by a marker
that Markdown does not show: anybody may copy the marker, nobody the author. A job's token may not ask whose it is, so
the settings say it. Making a comment is not repeatable, so it is asked for once, and what came of it is looked up
before it is asked for again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from forecastle.errors import SettingsError, SourceUnavailable, UserError
from forecastle.http import Answer, Client, Request, Transport, excerpt
from forecastle.settings import Settings

PAGE = 100
MOST_PAGES = 30
LONGEST = 65_000  # GitHub refuses bodies of more than 65 536 characters
CUT = "\n\n*The rest was too long for a comment; it stands in the job's summary.*\n"
PULL_REQUEST = re.compile(r"refs/pull/(\d+)/\w+")


@dataclass(frozen=True)
class Posted:
    """A comment that stands: its address, and whether it was made or brought up to date."""

    url: str
    created: bool
    by: str


@dataclass(frozen=True)
class PullRequest:
    """A pull request of a repository (``owner/name``)."""

    repository: str
    number: int


def pull_request_of(repository: str, ref: str) -> PullRequest | None:
    """Return the pull request a workflow runs for, or None where its ref is that of a branch or tag.

    Raises SettingsError where the repository is not ``owner/name``.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise SettingsError("a repository as owner/name", repr(repository), "Set GITHUB_REPOSITORY, or --repository.")
    found = PULL_REQUEST.fullmatch(ref)
    return PullRequest(repository, int(found[1])) if found else None


def post(
    settings: Settings, pull_request: PullRequest, text: str, name: str, transport: Transport | None = None
) -> Posted:
    """Let the text be our comment of this name on the pull request: bring it up to date, or make it.

    A text too long for GitHub is cut, and says so. Raises SettingsError where no token is set, UserError where GitHub
    does not let it in, SourceUnavailable where it does not answer.
    """
    body = f"{marker(name)}\n{text if len(text) <= LONGEST else text[:LONGEST] + CUT}"
    once = settings.model_copy(update={"http_attempts": 1})
    with Client(settings, transport) as patient, Client(once, transport) as single:
        github = _GitHub(settings, pull_request, patient, single)
        for attempt in range(settings.http_attempts):
            for known in github.ours(marker(name)):
                if (there := github.update(known, body)) is not None:
                    return Posted(str(there["html_url"]), False, _author(there))
            try:
                made = github.create(body)
                return Posted(str(made["html_url"]), True, _author(made))
            except SourceUnavailable:
                if attempt == settings.http_attempts - 1:
                    raise
    raise AssertionError("the last attempt returns or raises")


def marker(name: str) -> str:
    """Return the line by which our comment of a name is known; Markdown shows nothing of it."""
    return f"<!-- forecastle: {name} -->"


@dataclass(frozen=True)
class _GitHub:
    settings: Settings
    pull_request: PullRequest
    patient: Client
    single: Client

    def ours(self, mark: str) -> Iterator[int]:
        """Yield the ids of comments of the settings' login that begin with our marker, the oldest first."""
        login = self.settings.github_login.casefold()
        for page in range(1, MOST_PAGES + 1):
            query = {"per_page": str(PAGE), "page": str(page)}
            comments = self._ask(self.patient, "GET", f"issues/{self.pull_request.number}/comments", params=query)
            written = (one for one in comments if (one.get("body") or "").startswith(mark))
            yield from (int(one["id"]) for one in written if _author(one).casefold() == login)
            if len(comments) < PAGE:
                return

    def update(self, comment: int, body: str) -> dict[str, Any] | None:
        """Give a comment another text; None where it is not ours to change, or gone."""
        path, text = f"issues/comments/{comment}", {"body": body}
        found: dict[str, Any] | None = self._ask(self.patient, "PATCH", path, text, may_refuse=True)
        return found

    def create(self, body: str) -> dict[str, Any]:
        """Make a comment and return it."""
        path = f"issues/{self.pull_request.number}/comments"
        made: dict[str, Any] = self._ask(self.single, "POST", path, {"body": body})
        return made

    def _ask(
        self,
        client: Client,
        method: str,
        path: str,
        body: dict[str, str] | None = None,
        params: dict[str, str] | None = None,
        may_refuse: bool = False,
    ) -> Any:
        token = self.settings.secret("github_token")
        request = Request(
            f"{self.settings.github_url.rstrip('/')}/repos/{self.pull_request.repository}/{path}",
            params or {},
            headers={
                "authorization": f"Bearer {token}",
                "accept": "application/vnd.github+json",
                "x-github-api-version": "2022-11-28",
            },
            method=method,
            body=body,
            hidden=(token,),
        )
        answer = client.send(request)
        if may_refuse and answer.status in (403, 404):
            return None
        if not 200 <= answer.status < 300:
            raise UserError(f"{method} {request.source} to be done", _said(answer), _advice(answer.status))
        return json.loads(answer.body)


def _author(comment: Mapping[str, Any]) -> str:
    """Return the login of who wrote a comment; empty where the account is gone."""
    return str((comment.get("user") or {}).get("login") or "")


def _said(answer: Answer) -> str:
    return f"HTTP {answer.status}: {excerpt(answer.body)}"


def _advice(status: int) -> str:
    if status in (401, 403, 404):
        return "Give the job `pull-requests: write`, and FORECASTLE_GITHUB_TOKEN its token."
    return "See what GitHub complains of."
