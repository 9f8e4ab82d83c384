"""A report on a pull request: one comment, brought up to date in place, and no token in anything that is shown."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from forecastle.delivery.github import LONGEST, PAGE, PullRequest, marker, post, pull_request_of
from forecastle.errors import SettingsError, SourceUnavailable, UserError
from forecastle.settings import Settings

TOKEN = "ghs_0123456789"
BOT = "github-actions[bot]"
OURS = PullRequest("alice/weather", 7)
COMMENTS = "/repos/alice/weather/issues/7/comments"


class GitHub(httpx.BaseTransport):
    """A small GitHub: the comments of one pull request, and what it answers badly."""

    def __init__(self, *bodies: str) -> None:
        self.comments = [self.comment(number, body) for number, body in enumerate(bodies, 1)]
        self.foreign: set[int] = set()
        self.broken: list[str] = []
        self.token = TOKEN
        self.asked: list[str] = []

    def comment(self, number: int, body: str, login: str = BOT) -> dict[str, Any]:
        url = f"https://github.test/alice/weather/pull/7#{number}"
        return {"id": number, "body": body, "html_url": url, "user": {"login": login}}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        method, path = request.method, request.url.path
        self.asked.append(f"{method} {path}")
        if request.headers["authorization"] != f"Bearer {self.token}":
            return httpx.Response(401, json={"message": f"Bad credentials {request.headers['authorization']}"})
        body = json.loads(request.read())["body"] if method in ("POST", "PATCH") else ""
        if method == "GET" and path == COMMENTS:
            page = int(request.url.params["page"])
            return httpx.Response(200, json=self.comments[(page - 1) * PAGE : page * PAGE])
        if method == "POST" and path == COMMENTS:
            fault = self.broken.pop(0) if self.broken else ""
            if fault != "before":
                self.comments.append(self.comment(len(self.comments) + 1, body))
            return httpx.Response(502) if fault else httpx.Response(201, json=self.comments[-1])
        number = int(path.rpartition("/")[2])
        if number in self.foreign:
            return httpx.Response(403, json={"message": "Resource not accessible by integration"})
        self.comments[number - 1]["body"] = body
        return httpx.Response(200, json=self.comments[number - 1])


@pytest.fixture
def settings() -> Settings:
    return Settings(github_url="https://api.github.test", github_token=TOKEN, _env_file=None)  # type: ignore[call-arg]


def test_the_first_report_becomes_a_comment_with_a_hidden_marker(settings: Settings) -> None:
    github = GitHub("Looks good to me.")
    posted = post(settings, OURS, "## Better", "comparison", github)
    assert posted.created and posted.url.endswith("#2")
    assert github.comments[1]["body"] == "<!-- forecastle: comparison -->\n## Better"


def test_the_next_report_takes_its_place(settings: Settings) -> None:
    github = GitHub("Looks good to me.")
    first, second = (post(settings, OURS, text, "comparison", github) for text in ("one", "two"))
    assert (first.created, second.created, first.url) == (True, False, second.url)
    assert [one["body"] for one in github.comments] == ["Looks good to me.", f"{marker('comparison')}\ntwo"]


def test_a_report_of_another_name_is_another_comment(settings: Settings) -> None:
    github = GitHub()
    post(settings, OURS, "one", "comparison", github)
    assert post(settings, OURS, "two", "coverage", github).created


def test_our_comment_is_found_behind_hundreds_of_others(settings: Settings) -> None:
    github = GitHub(*["talk"] * (2 * PAGE + 3), f"{marker('comparison')}\nold")
    assert not post(settings, OURS, "new", "comparison", github).created
    assert github.comments[-1]["body"].endswith("new")


@pytest.mark.parametrize("stranger", ["mallory", "github-actions", None])
def test_the_comment_of_a_stranger_who_copies_the_marker_is_left_alone(settings: Settings, stranger) -> None:
    github = GitHub(f"{marker('comparison')}\nmine now")
    github.comments[0]["user"] = stranger and {"login": stranger}
    assert post(settings, OURS, "ours", "comparison", github).created
    assert not post(settings, OURS, "again", "comparison", github).created
    assert [one["body"].partition("\n")[2] for one in github.comments] == ["mine now", "again"]
    assert [one for one in github.asked if one.startswith("PATCH")] == ["PATCH /repos/alice/weather/issues/comments/2"]


def test_a_comment_that_is_not_ours_to_change_any_more_does_not_stop_the_report(settings: Settings) -> None:
    github = GitHub(f"{marker('comparison')}\nold")
    github.foreign = {1}
    assert post(settings, OURS, "new", "comparison", github).created


def test_with_a_token_of_one_s_own_the_setting_says_whose_comments_are_ours(settings: Settings) -> None:
    github = GitHub(f"{marker('comparison')}\nold")
    github.comments[0]["user"] = {"login": "Alice"}
    alice = settings.model_copy(update={"github_login": "alice"})
    assert not post(alice, OURS, "new", "comparison", github).created
    assert post(settings, OURS, "new", "comparison", github).by == BOT


@pytest.mark.parametrize("fault", ["before", "after"])
def test_an_answer_that_was_lost_makes_no_second_comment(settings: Settings, fault: str) -> None:
    github = GitHub()
    github.broken = [fault]
    post(settings, OURS, "report", "comparison", github)
    assert [one["body"] for one in github.comments] == [f"{marker('comparison')}\nreport"]


def test_a_github_that_stays_down_is_said(settings: Settings) -> None:
    github = GitHub()
    github.broken = ["before"] * 10
    with pytest.raises(SourceUnavailable, match="HTTP 502"):
        post(settings, OURS, "report", "comparison", github)
    assert github.asked.count(f"POST {COMMENTS}") == settings.http_attempts


def test_a_token_that_is_refused_is_not_shown(settings: Settings) -> None:
    github = GitHub()
    github.token = "another"
    with pytest.raises(UserError, match="pull-requests: write") as refused:
        post(settings, OURS, "report", "comparison", github)
    assert TOKEN not in str(refused.value) and "401" in str(refused.value)


def test_without_a_token_nothing_is_asked(settings: Settings) -> None:
    github = GitHub()
    with pytest.raises(SettingsError, match="FORECASTLE_GITHUB_TOKEN"):
        post(settings.model_copy(update={"github_token": Settings().github_token}), OURS, "report", "x", github)
    assert github.asked == []


def test_a_report_too_long_for_a_comment_is_cut_and_says_so(settings: Settings) -> None:
    github = GitHub()
    post(settings, OURS, "x" * (LONGEST + 1), "comparison", github)
    assert len(github.comments[0]["body"]) < 65_536
    assert "job's summary" in github.comments[0]["body"]


@pytest.mark.parametrize(
    ("ref", "expected"),
    [("refs/pull/7/merge", OURS), ("refs/heads/dev", None), ("refs/tags/v1.0.0", None), ("", None)],
)
def test_a_ref_says_which_pull_request_it_is(ref: str, expected: PullRequest | None) -> None:
    assert pull_request_of("alice/weather", ref) == expected


def test_a_repository_without_an_owner_is_refused() -> None:
    with pytest.raises(SettingsError, match="owner/name"):
        pull_request_of("weather", "refs/pull/7/merge")
