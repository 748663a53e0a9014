"""Answers of snapshot URLs as cameras send them: the picture, or what came instead. No network."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from functools import cache
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from camserver.http.head import end_of_head, parse_head
from camserver.http.picture import Kind, Picture, PictureFinder
from camserver.http.reader import Answer, HttpReader
from camserver.http.words import MAX_CHARS, said
from camserver.jpeg_file import JpegEnd, exif_segment, whole_jpeg, without_comments


@cache
def image(kind: str = "JPEG", *, progressive: bool = False, thumbnail: bool = False) -> bytes:
    file, picture = io.BytesIO(), Image.effect_noise((96, 64), 60).convert("RGB")
    keys = {"progressive": progressive} if kind == "JPEG" else {}
    picture.save(file, kind, **keys)
    data = file.getvalue()
    if thumbnail:
        small = b"Exif\0\0" + image()
        data = data[:2] + b"\xff\xe1" + (len(small) + 2).to_bytes(2, "big") + small + data[2:]
    return data


JPEG = image()


def answer(head: str, body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body


def chunked(body: bytes, size: int = 100, end: bytes = b"0\r\n\r\n") -> bytes:
    parts = [body[n : n + size] for n in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + end


def parts(*bodies: bytes, kind: str = "image/jpeg", length: bool = True) -> bytes:
    found = b""
    for body in bodies:
        found += f"--frame\r\nContent-Type: {kind}\r\n".encode()
        found += b"Content-Length: %d\r\n" % len(body) if length else b""
        found += b"\r\n" + body + b"\r\n"
    return found


MULTIPART = "Content-Type: multipart/x-mixed-replace; boundary=frame\r\n"
LENGTH = f"Content-Length: {len(JPEG)}\r\n"
WHOLE_AT_ONCE = {
    "as it should be": answer(LENGTH, JPEG),
    "length 48 too large": answer(f"Content-Length: {len(JPEG) + 48}\r\n", JPEG),
    "length too small": answer("Content-Length: 100\r\n", JPEG),
    "two lengths": answer(f"Content-Length: 5\r\n{LENGTH}", JPEG),
    "length of no number": answer("Content-Length: -5\r\n", JPEG),
    "no length": answer("", JPEG),
    "chunked": answer("Transfer-Encoding: chunked\r\n", chunked(JPEG)),
    "chunked without an end": answer("Transfer-Encoding: chunked\r\n", chunked(JPEG, end=b"")),
    "chunked, with a length": answer(f"Transfer-Encoding: chunked\r\n{LENGTH}", chunked(JPEG)),
    "chunks of one byte": answer("Transfer-Encoding: chunked\r\n", chunked(JPEG, 1)),
    "more after its end": answer("", JPEG + b"DHAV" + bytes(32)),
    "0xFF after its end": answer(LENGTH, JPEG + b"\xff" * 40),
    "blanks before": answer("", b"\r\n \0\r\n" + JPEG),
    "a thumbnail": answer("", image(thumbnail=True)),
    "progressive": answer("", image(progressive=True)),
    "gzip": answer("Content-Encoding: gzip\r\n", gzip.compress(JPEG)),
    "deflate": answer("Content-Encoding: deflate\r\n", zlib.compress(JPEG)),
    "parts": answer(MULTIPART, parts(JPEG, JPEG)),
    "one part": answer(MULTIPART, parts(JPEG) + b"--frame--\r\n"),
    "a part without a length": answer(MULTIPART, parts(JPEG, length=False)),
    "a blank line before the parts": answer(MULTIPART, b"\r\n" + parts(JPEG)),
    "multipart that is none": answer(MULTIPART, JPEG),
    "a part with a PNG": answer(MULTIPART, parts(image("PNG"))),
    "a line without a name": answer("Tue, 12 Jun 2012 01:56:34 GMT\r\n" + LENGTH, JPEG),
    "a blank before the colon": answer(f"Content-Length : {len(JPEG)}\r\n", JPEG),
    "a header of 9 kB": answer("X-Info: " + "a" * 9000 + "\r\n" + LENGTH, JPEG),
    "a folded line": answer("X-Info: a\r\n  b\r\n" + LENGTH, JPEG),
    "line ends without CR": b"HTTP/1.1 200 OK\nContent-Type: image/jpeg\n\n" + JPEG,
    "continue first": b"HTTP/1.1 100 Continue\r\n\r\n" + answer(LENGTH, JPEG),
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\n" + JPEG,
    "no reason": b"HTTP/1.1 200\r\n\r\n" + JPEG,
}
WHOLE_AT_THE_END = {
    "PNG": answer("", image("PNG")),
    "WebP": answer("", image("WEBP")),
    "BMP": answer("", image("BMP")),
}


def read(data: bytes, cuts: list[int] | None = None) -> tuple[Answer | None, HttpReader]:
    """Read an answer in pieces, as far as needed. None while it is not complete."""
    reader = HttpReader()
    reader.request("/", [("Host", "x")])
    bounds = [0, *sorted(cut % (len(data) + 1) for cut in cuts or []), len(data)]
    for begin, end in pairwise(bounds):
        reader.feed(data[begin:end])
    return reader.answer, reader


@pytest.mark.parametrize("habit", WHOLE_AT_ONCE)
def test_a_whole_picture_is_taken_at_once(habit: str) -> None:
    """Without waiting for the end of the body, or of the connection."""
    data = WHOLE_AT_ONCE[habit]
    found, _ = read(data)
    assert found is not None
    assert found.picture is not None
    assert found.picture.data in data or "gzip" in habit or "deflate" in habit or "chunk" in habit
    with Image.open(io.BytesIO(found.picture.data)) as picture:
        picture.load()
        assert picture.size == (96, 64)
    assert found.picture.data.endswith((b"\xff\xd9", b"IEND\xaeB`\x82"))


@pytest.mark.parametrize("habit", WHOLE_AT_THE_END)
def test_other_pictures_are_whole_when_the_body_ends(habit: str) -> None:
    data = WHOLE_AT_THE_END[habit]
    found, reader = read(data)
    assert found is None
    reader.end()
    assert reader.answer is not None
    kind = {"PNG": Kind.PNG, "WebP": Kind.WEBP, "BMP": Kind.BMP}[habit]
    assert reader.answer.picture == Picture(kind, data.partition(b"\r\n\r\n")[2])


@given(
    st.sampled_from([*WHOLE_AT_ONCE, *WHOLE_AT_THE_END]),
    st.lists(st.integers(0, 1 << 16), max_size=12),
)
def test_the_answer_does_not_depend_on_how_it_comes(habit: str, cuts: list[int]) -> None:
    data = (WHOLE_AT_ONCE | WHOLE_AT_THE_END)[habit]
    _, at_once = read(data)
    _, in_pieces = read(data, cuts)
    at_once.end()
    in_pieces.end()
    assert at_once.answer is not None
    assert in_pieces.answer is not None
    assert in_pieces.answer.picture == at_once.answer.picture


@given(st.integers(2, len(JPEG) - 1))
def test_a_part_of_a_picture_is_none(length: int) -> None:
    _, reader = read(answer("", JPEG[:length]))
    assert reader.answer is None
    reader.end()
    assert reader.answer is not None
    assert reader.answer.picture is None
    assert reader.answer.is_cut


def test_a_refusal_can_be_followed_by_another_request() -> None:
    refused = answer("Content-Length: 2\r\nWWW-Authenticate: Basic\r\n", b"no", "401 No")
    found, reader = read(refused)
    assert found is not None
    assert (found.head.status, found.body, found.may_reuse) == (401, b"no", True)
    reader.request("/", [("Host", "x")])
    reader.feed(answer(LENGTH, JPEG))
    assert reader.answer is not None
    assert reader.answer.picture == Picture(Kind.JPEG, JPEG)
    # A line end after the body, at once or late. The login must go over the same connection: on
    # another one the camera may call its nonce wrong.
    for early, late in ((b"\r\n", b""), (b"", b"\r\n")):
        found, reader = read(refused + early)
        assert found is not None
        assert found.may_reuse
        reader.request("/", [("Host", "x")])
        reader.feed(late + answer(LENGTH, JPEG))
        assert reader.answer is not None
        assert reader.answer.picture == Picture(Kind.JPEG, JPEG)
    found, _ = read(refused + b"more than its length says")
    assert found is not None
    assert not found.may_reuse
    for head in ("Content-Length: 2\r\nConnection: close\r\n", "Content-Length: 100\r\n", ""):
        found, reader = read(answer(head, b"no", "401 No"))
        reader.end()
        assert reader.answer is not None
        assert not reader.answer.may_reuse


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"SSH-2.0-dropbear\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 600 + b"\r\n", "more than 500 lines"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"b" * 70_000, "more than 65536 bytes"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 11, "more than 10 heads"),
        (answer("Content-Encoding: gzip\r\n", gzip.compress(bytes(10**7))), "grows too much"),
        (answer("Content-Encoding: gzip\r\n", b"\x1f\x8bnonsense, and more"), "is damaged"),
        (answer("", b"x" * (33 << 20)), "more than 33554432 bytes"),
    ],
)
def test_what_makes_no_sense_or_is_too_much_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read(data)


def test_the_end_of_a_jpeg_is_found_once_and_in_linear_time() -> None:
    """The search goes on where it ended, also in the middle of a marker or of a segment."""
    data = image(thumbnail=True) + b"\xff\xd9more"
    end, walk, found = len(image(thumbnail=True)), JpegEnd(), None
    for length in range(len(data) + 1):
        found = walk.find(data[:length])
        assert (found is None) == (length < end), length
        if found is not None:
            break
    assert found == end
    assert whole_jpeg(b"GIF89a" + data) is None
    assert whole_jpeg(data) == image(thumbnail=True)


def test_what_libjpeg_warns_of_is_left_out() -> None:
    odd = JPEG[:2] + b"\xff\xe0\x00\x09JFIF\0\x09\x09" + b"\xff\xfe\x00\x04ab" + b"stray" + JPEG[2:]
    assert whole_jpeg(odd) == odd
    clean = without_comments(odd)
    assert b"stray" not in clean
    assert b"JFIF" not in clean
    with Image.open(io.BytesIO(clean)) as a, Image.open(io.BytesIO(JPEG)) as b:
        assert a.tobytes() == b.tobytes()
    assert exif_segment(JPEG) == b""
    segment = exif_segment(image(thumbnail=True))
    assert segment[4:8] == b"Exif"
    assert segment in image(thumbnail=True)


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        (b'{"error": {"code": 7, "detail": "please login first"}}', "", "JSON: please login first"),
        (b'{"status": "x", "message": "busy\\u202e\\n now"}', "", "JSON: busy now"),
        (b'[{"a": 1}]', "application/json", 'JSON: [{"a": 1}]'),
        (b'{"broken', "", 'JSON: {"broken'),
        (b"<!DOCTYPE html><title> Log &amp; in </title><p>x", "", "HTML: Log & in"),
        (b"<html><script>let x = 1</script><p>Sorry,<b> no", "text/html", "HTML: Sorry, no"),
        (b"<?xml version='1.0'?><s>Device Busy</s>", "application/xml", "XML: Device Busy"),
        (b"Error: \x1b[31mno", "text/plain", "text: Error: [31mno"),
        (b"", "", ""),
        (b"\x00\x01\x02", "", ""),
        (b"\xff\xfe\xfd\xfc" * 9, "", ""),
        (b"<html></html>", "", "HTML"),
    ],
)
def test_what_a_camera_says_is_quoted_in_few_words(body: bytes, kind: str, words: str) -> None:
    assert str(said(body, kind)) == words


@given(st.binary(max_size=300), st.sampled_from(["", "text/html", "application/json"]))
def test_a_quote_is_short_and_can_be_shown(body: bytes, kind: str) -> None:
    text = str(said(body, kind))
    assert text.isprintable()
    assert len(text) <= MAX_CHARS + len("JSON: ")
    assert str(said(json.dumps({"message": body.decode("latin-1")}).encode(), kind)).isprintable()


def test_heads() -> None:
    data = b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nX: 1\r\nx: 2\r\n\r\n"
    head = parse_head(data)
    assert (head.status, head.all("x"), head.first("x"), head.first("y")) == (
        503,
        ["1", "2"],
        "1",
        "",
    )
    assert end_of_head(data + b"body", 0) == len(data)
    assert head.retry_after_s(0) == 7
    for text, seconds in (
        ("Thu, 01 Jan 1970 00:01:00 GMT", 50),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("99999999", 3600),
        ("soon", 0),
        ("-1", 0),
        ("", 0),
    ):
        assert (
            parse_head(f"HTTP/1.1 503 x\nRetry-After: {text}".encode()).retry_after_s(10) == seconds
        )


def test_a_picture_finder_keeps_little_of_what_is_no_picture() -> None:
    finder = PictureFinder("")
    for _ in range(100):
        finder.feed(b"x" * 65536)
    assert len(finder.came) <= 2 * 65536
    assert finder.ended() is None


STUFFED = {
    "fill bytes": b"\xff" * 200_000,
    "markers": b"\xff\xd0" * 100_000,
    "segments": b"\xff\xe0\x00\x02" * 50_000,
    "stray bytes": b"x" * 200_000,
}


@pytest.mark.parametrize("stuffing", STUFFED)
@pytest.mark.parametrize("in_scan", [False, True])
def test_stuffing_costs_linear_time(stuffing: str, in_scan: bool) -> None:
    """Twice as much takes about twice as many steps. Quadratic code does not end here."""
    head = b"\xff\xd8" + (b"\xff\xda\x00\x02" if in_scan else b"")
    data = head + STUFFED[stuffing] * 20
    walk = JpegEnd()
    for begin in range(0, len(data), 100_000):
        walk.find(data[: begin + 100_000])
    assert whole_jpeg(data) is None
    without_comments(data)
    assert exif_segment(data) == b""


@pytest.mark.parametrize("text", ["<title>", "<title", "<", "<script>", "{", "<a", "&"])
def test_a_quote_costs_linear_time(text: str) -> None:
    for _ in range(50):
        said(text.encode() * 100_000, "text/html")


def test_a_secret_is_removed_before_the_text_is_cut() -> None:
    secret = "correct horse battery staple " * 4
    found = said(f"wrong login {secret}".encode(), "", lambda text: text.replace(secret, "***"))
    assert found == ("text", "wrong login ***")
