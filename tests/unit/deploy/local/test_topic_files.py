"""The object store under the embedded broker: what S3 promises to those who write to it, on files."""

import json
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from deploy.local.topic_files import BUCKET, TOKEN_HEADER
from deploy.local.topic_files.app import application
from deploy.local.topic_files.mend import mend
from deploy.local.topic_files.objects import KeyRefused, Objects, Outdated, version_of

PARTITION = "clusters/groundswell/topics/some.topic.v1/partitions/0000000003"


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client with the token, as the broker is."""
    transport = httpx.ASGITransport(application(Objects(tmp_path), token="the token"))
    async with httpx.AsyncClient(
        transport=transport, base_url=f"http://store/{BUCKET}", headers={TOKEN_HEADER: "the token"}
    ) as client:
        yield client


def test_what_was_written_is_there_for_the_next_process(tmp_path: Path) -> None:
    objects = Objects(tmp_path)
    objects.put("a/b.json", b"one")
    objects.put("a/b.json", b"two")
    objects.put("a/c.json", b"three")
    objects.delete("a/c.json")
    again = Objects(tmp_path)
    assert again.get("a/b.json") == b"two"
    assert again.get("a/c.json") is None
    assert again.keys("") == ["a/b.json"]


def test_what_a_killed_write_left_is_no_object(tmp_path: Path) -> None:
    Objects(tmp_path).put("a", b"one")
    (tmp_path / ".unfinished" / "object").write_bytes(b"half")
    assert Objects(tmp_path).keys("") == ["a"]


def test_only_one_of_two_writers_makes_an_object(tmp_path: Path) -> None:
    objects = Objects(tmp_path)
    objects.put("a", b"first", must_be_new=True)
    with pytest.raises(Outdated):
        objects.put("a", b"second", must_be_new=True)
    assert objects.get("a") == b"first"


def test_a_writer_that_has_seen_an_older_version_changes_nothing(tmp_path: Path) -> None:
    objects = Objects(tmp_path)
    seen = objects.put("a", b"1")
    assert objects.put("a", b"2", must_match=seen) == version_of(b"2")
    with pytest.raises(Outdated):
        objects.put("a", b"3", must_match=seen)
    with pytest.raises(Outdated):
        objects.put("was never there", b"3", must_match=seen)
    assert objects.get("a") == b"2"


@pytest.mark.parametrize("key", ["", "..", "../a", "a/../../b", "/a", "a//b", ".unfinished/object", "a\0b"])
def test_no_key_leads_out_of_the_folder(tmp_path: Path, key: str) -> None:
    with pytest.raises(KeyRefused):
        Objects(tmp_path).put(key, b"x")


async def test_nobody_without_the_token_is_served(broker: httpx.AsyncClient) -> None:
    await broker.put("/a", content=b"mine")
    for token in ("", "another"):
        answer = await broker.get("/a", headers={TOKEN_HEADER: token})
        assert (answer.status_code, b"mine" in answer.content) == (403, False)


async def test_conditions_and_versions_are_those_of_s3(broker: httpx.AsyncClient) -> None:
    assert (await broker.get("/a%2Fb")).status_code == 404
    made = await broker.put("/a/b", content=b"1", headers={"if-none-match": "*"})
    assert made.status_code == 200
    assert (await broker.put("/a/b", content=b"2", headers={"if-none-match": "*"})).status_code == 412
    got = await broker.get("/a/b")
    assert (got.content, got.headers["etag"]) == (b"1", made.headers["etag"])
    assert got.headers["last-modified"].endswith("GMT")
    assert (await broker.get("/a/b", headers={"if-none-match": got.headers["etag"]})).status_code == 304
    assert (await broker.put("/a/b", content=b"2", headers={"if-match": got.headers["etag"]})).status_code == 200
    assert (await broker.put("/a/b", content=b"3", headers={"if-match": got.headers["etag"]})).status_code == 412
    assert (await broker.get("/../a/b")).status_code in (400, 404)
    assert (await broker.delete("/a/b")).status_code == 204
    assert (await broker.get("/a/b")).status_code == 404


async def test_listings_are_in_order_and_go_on_where_they_were_cut(
    broker: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.local.topic_files.app._MOST_LISTED", 2)
    for key in ("t/3", "t/1", "t/2", "u/1", "t-/1"):
        await broker.put(f"/{key}", content=b"x")
    first = (await broker.get("", params={"list-type": "2", "prefix": "t/"})).text
    assert first.index("<Key>t/1</Key>") < first.index("<Key>t/2</Key>")
    assert "t/3" not in first
    assert "<IsTruncated>true" in first
    rest = (await broker.get("", params={"list-type": "2", "prefix": "t/", "continuation-token": "t/2"})).text
    assert "<Key>t/3</Key>" in rest
    assert "<IsTruncated>false" in rest
    assert "u/1" not in rest


async def test_a_listing_with_a_delimiter_names_the_folders(broker: httpx.AsyncClient) -> None:
    for key in ("t/a.json", "t/b/1", "t/b/2"):
        await broker.put(f"/{key}", content=b"x")
    listing = (await broker.get("", params={"list-type": "2", "prefix": "t/", "delimiter": "/"})).text
    assert "<Key>t/a.json</Key>" in listing
    assert listing.count("<CommonPrefixes><Prefix>t/b/</Prefix></CommonPrefixes>") == 1
    assert "<Key>t/b/" not in listing


async def test_many_objects_are_deleted_at_once(broker: httpx.AsyncClient) -> None:
    for key in ("a&b", "c", "d"):
        await broker.put(f"/{key.replace('&', '%26')}", content=b"x")
    body = "<Delete><Object><Key>a&amp;b</Key></Object><Object><Key>c</Key></Object></Delete>"
    answer = await broker.post("?delete", content=body)
    assert answer.text.count("<Deleted>") == 2
    assert [(await broker.get(f"/{key}")).status_code for key in ("a%26b", "c", "d")] == [404, 404, 200]


def a_batch(records: int) -> bytes:
    """The head of a record batch."""
    return bytes(23) + struct.pack(">i", records - 1) + bytes(34)


def test_an_end_behind_which_nothing_was_written_goes_back_to_the_last_batch(tmp_path: Path) -> None:
    objects = Objects(tmp_path)
    objects.put(f"{PARTITION}/watermark.json", json.dumps({"low": None, "high": 9, "timestamps": None}).encode())
    objects.put(f"{PARTITION}/records/{0:020}.batch", a_batch(2))
    objects.put(f"{PARTITION}/records/{2:020}.batch", a_batch(5))
    assert mend(objects) == [f"{PARTITION}: 2 records"]
    assert json.loads(objects.get(f"{PARTITION}/watermark.json") or b"") == {"low": None, "high": 7, "timestamps": None}
    assert mend(objects) == []


def test_the_end_of_a_partition_whose_only_batch_was_not_written_is_its_beginning(tmp_path: Path) -> None:
    objects = Objects(tmp_path)
    objects.put(f"{PARTITION}/watermark.json", b'{"low":null,"high":3,"timestamps":null}')
    mend(objects)
    assert json.loads(objects.get(f"{PARTITION}/watermark.json") or b"")["high"] == 0
