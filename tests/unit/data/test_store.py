"""A place that keeps objects: a folder and a bucket answer alike, and say plainly what is wrong."""

from __future__ import annotations

from pathlib import Path


import pytest
from obstore.store import MemoryStore

from forecastle.data import store
from forecastle.data.store import Bucket, Folder, open_store, task_stores
from forecastle.errors import SettingsError, StorageUnavailable
from forecastle.settings import Settings

SECRET = "very-secret"


@pytest.fixture(params=["folder", "bucket"])
def place(request, tmp_path: Path):
    return Folder(tmp_path / "p") if request.param == "folder" else Bucket("memory://b", MemoryStore()) / "p"


def settings(**fields: object) -> Settings:
    return Settings(_env_file=None, **fields)  # type: ignore[call-arg, arg-type]


def test_what_was_put_is_listed_and_read_until_it_is_deleted(place):
    assert place.list() == []
    for name in ("b", "a/2", "a/1"):
        place.put(name, name.encode())
    place.put("b", b"again")
    assert place.list() == ["a/1", "a/2", "b"] and place.list(below=False) == ["b"]
    assert (place / "a").list(below=False) == ["1", "2"]
    assert place.get(["b", "a/1", "b"]) == [b"again", b"a/1", b"again"]
    assert place.exists("b") and not place.exists("a") and not place.exists("c")
    place.delete("b")
    place.delete("b")
    assert place.list() == ["a/1", "a/2"]


def test_a_place_below_another_holds_its_part_and_no_neighbour_with_a_longer_name(place):
    (place / "x").put("one", b"1")
    (place / "xy").put("two", b"2")
    assert (place / "x").list() == ["one"]
    assert place.list() == ["x/one", "xy/two"]
    assert (place / "x").uri == f"{place.uri}/x"


def test_an_object_that_is_not_there_is_missing_and_no_fault(place):
    place.put("a", b"1")
    with pytest.raises(FileNotFoundError):
        place.get(["a", "b"])


def test_a_large_object_comes_back_as_it_was(place):
    content = bytes(range(256)) * 50_000
    place.put("large", content)
    assert place.get(["large"]) == [content]


def test_unfinished_files_are_no_objects(tmp_path):
    (tmp_path / ".a.part").touch()
    assert Folder(tmp_path).list() == []


def test_a_folder_that_refuses_is_said(tmp_path):
    (tmp_path / "file").touch()
    place = Folder(tmp_path / "file")
    for action in (lambda: place.put("a", b""), lambda: place.get(["a"]), lambda: place.delete("a")):
        with pytest.raises(StorageUnavailable, match="file"):
            action()


def test_the_place_of_a_task_follows_the_settings_and_is_the_home_folder_without(tmp_path):
    assert task_stores(settings(home=tmp_path), "t").uri == str(tmp_path / "t")
    assert task_stores(settings(stores=str(tmp_path / "else")), "t").uri == str(tmp_path / "else" / "t")
    there = {"stores_key_id": "k", "stores_secret": "c2VjcmV0"}
    assert task_stores(settings(stores="s3://b/p/q/", **there), "t").uri == "s3://b/p/q/t"
    assert task_stores(settings(stores="az://b", **there), "t").uri == "az://b/t"


@pytest.mark.parametrize("uri", ["ftp://b/p", "s3://", "s3:///p", "https://user:very-secret@host/p"])
def test_an_address_of_another_kind_is_said_without_what_may_be_secret_in_it(uri):
    with pytest.raises(SettingsError, match="s3://bucket/prefix") as caught:
        open_store(uri, settings())
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("endpoint", ["127.0.0.1:9000", "http://127.0.0.1:9000"])
def test_an_endpoint_without_encryption_has_to_be_allowed(endpoint):
    with pytest.raises(SettingsError, match="FORECASTLE_STORES_ENDPOINT"):
        open_store("s3://b", settings(stores_endpoint=endpoint))


def test_an_account_key_that_cannot_be_is_a_mistake_of_the_settings():
    with pytest.raises(SettingsError, match="FORECASTLE_STORES_SECRET") as caught:
        open_store("az://b", settings(stores_key_id="k", stores_secret="not base 64!"))
    assert "not base" not in str(caught.value)


def test_a_server_that_is_not_there_is_said_without_the_secret(monkeypatch):
    monkeypatch.setitem(store.RETRY, "max_retries", 0)
    fields = {"stores_endpoint": "http://127.0.0.1:9", "stores_key_id": "k", "stores_secret": SECRET}
    place = open_store("s3://b", settings(stores_allow_http=True, **fields))
    with pytest.raises(StorageUnavailable, match="Connection refused") as caught:
        place.list()
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(settings(**fields))
