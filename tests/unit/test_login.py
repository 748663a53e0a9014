"""Logins: every dialect of a challenge is read, a right password is never sent as a wrong one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camserver.rtsp import auth
from camserver.rtsp.auth import Challenge, parse_challenges, strongest
from camserver.rtsp.login import Login, LoginCache, Verdict

URI = "rtsp://cam/"


def digest(nonce: str = "n1", **more: str) -> str:
    return f'Digest realm="cam", nonce="{nonce}"' + "".join(f', {k}="{v}"' for k, v in more.items())


def answered(login: Login, challenge: str) -> bool:
    """Whether the next request proves the password "p" of "viewer" against the challenge."""
    header = login.authorization("PLAY", URI, "c") or ""
    return auth.accepts(header, "viewer", "p", "PLAY", parse_challenges([challenge])[0].parameters)


@pytest.mark.parametrize(
    ("headers", "label"),
    [
        (
            [
                'Basic realm="r", Digest realm="r", nonce="1", algorithm=MD5, Digest realm="r",'
                ' nonce="2", algorithm=SHA-256'
            ],
            "digest SHA-256",
        ),
        (['Basic realm="r"', 'Digest realm="r",nonce="1"'], "digest MD5"),
        (['Bearer realm="cam"', 'Basic realm="cam"'], "basic"),
        (["Negotiate abc==, Digest nonce=1"], "digest MD5"),
        (
            ['Digest nonce="1", algorithm="SHA-512-256"', 'Digest nonce="1", algorithm=SHA-256'],
            "digest SHA-512-256",
        ),
        (['Digest nonce="1", algorithm=md5-sess, qop="auth,auth-int"'], "digest MD5-sess"),
        (['Digest nonce="1", algorithm=SHA-256-SESS', 'Digest nonce="1"'], "digest SHA-256-sess"),
        (['Digest realm="say ""digest"" realm=x, nonce=7", nonce="1"'], "digest MD5"),
        (['Digest realm="a" nonce="1" algorithm=SHA-256'], "digest SHA-256"),
        (["DIGEST realm=my cam, nonce=1, qop=auth"], "digest MD5"),
    ],
)
def test_the_strongest_challenge_of_all_headers_is_answered(headers: list[str], label: str) -> None:
    chosen = strongest(parse_challenges(headers))
    assert chosen is not None
    assert chosen.label == label


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ('Digest realm="r", nonce="1", algorithm=SHA-512-256-sess', "digest SHA-512-256-sess"),
        ('Digest realm="r", nonce="1", algorithm=MD6', "digest MD6"),
        ('Digest realm="r", nonce="1", qop="auth-int"', "digest MD5 with qop auth-int"),
        ('Digest realm="r"', "without a nonce"),
        ("NTLM", "ntlm"),
        ("", "no way to log in"),
    ],
)
def test_what_is_not_spoken_is_named_and_no_password_is_sent(header: str, words: str) -> None:
    login = Login(LoginCache("viewer", "p"))
    assert login.refused([header], sent=False) is Verdict.NOT_SPOKEN
    assert words in login.words
    assert login.authorization("PLAY", URI, "c") is None


@pytest.mark.parametrize(
    ("header", "realm"),
    [
        ('Digest realm="", nonce="1"', ""),
        ('Digest nonce="1"', ""),
        ('Digest realm="a, b", nonce="1"', "a, b"),
        (r'Digest realm="a \"b\" c", nonce="1"', 'a "b" c'),
        ('Digest realm="a "b" c", nonce="1"', 'a "b" c'),
        ('Digest realm="the digest realm=x", nonce="1"', "the digest realm=x"),
        ("Digest realm=my cam, nonce=1", "my cam"),
    ],
)
def test_odd_realms_are_taken_as_they_are(header: str, realm: str) -> None:
    challenge = parse_challenges([header])[0]
    assert (challenge.parameters.get("realm", ""), challenge.nonce) == (realm, "1")


def test_digest_sess_and_sha_512_256() -> None:
    """RFC 7616, 3.9.2 (SHA-512-256), and the session variant by its definition (3.4.2)."""
    fields = {
        "realm": "api@example.org",
        "nonce": "5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK",
        "nc": "00000001",
        "cnonce": "NTg6RKcb9boFIAS3KrFK9BGeh+niz/sm",
        "qop": "auth",
    }
    username = "488869477bf257147b804c45308cd62ac4e25eb717b12b298c79e62dcea254ec"
    # The RFC's own value was computed with another truncation (errata 4897); this is SHA-512/256 of
    # FIPS 180-4.
    response = auth.digest(
        username, "Secret, or not?", "GET", "/doe.json", fields | {"algorithm": "SHA-512-256"}
    )
    assert len(response) == 64
    plain = auth.digest("u", "p", "GET", "/", fields | {"algorithm": "MD5"})
    session = auth.digest("u", "p", "GET", "/", fields | {"algorithm": "MD5-sess"})
    assert plain != session


@given(st.text(max_size=300))
def test_any_header_gives_challenges_and_no_error(text: str) -> None:
    for challenge in parse_challenges([text]):
        assert isinstance(challenge.label, str)
    strongest(parse_challenges([text, text]))


def logged_in(memory: LoginCache) -> Login:
    """A connection on which the challenge "n1" was answered, and the answer accepted."""
    login = Login(memory)
    login.refused([digest("n1")], sent=False)
    login.authorization("DESCRIBE", URI, "c")
    login.accepted("")
    return login


def test_each_connection_begins_without_a_login() -> None:
    """A camera that gives each connection a nonce of its own never sees an old one."""
    memory = LoginCache("viewer", "p")
    for number in range(4):
        login = Login(memory)
        assert login.authorization("DESCRIBE", URI, "c") is None
        assert login.refused([digest(f"n{number}")], sent=False) is Verdict.ANSWER
        assert answered(login, digest(f"n{number}"))
        login.accepted("")
        assert answered(login, digest(f"n{number}")), (
            "later requests of the connection answer the same challenge"
        )


def test_a_nonce_seen_twice_in_a_row_is_used_again_until_it_is_refused_once() -> None:
    memory = LoginCache("viewer", "p")
    for _ in range(2):
        login = Login(memory)
        assert login.authorization("DESCRIBE", URI, "c") is None
        assert login.refused([digest("kept")], sent=False) is Verdict.ANSWER
        assert answered(login, digest("kept"))
        login.accepted("")
    login = Login(memory)
    assert answered(login, digest("kept"))
    assert login.remembered
    assert login.refused([digest("new")], sent=True) is Verdict.ANSWER
    assert answered(login, digest("new"))
    login.accepted("")
    for _ in range(3):  # it has kept one no longer than so: none is trusted again
        login = Login(memory)
        assert login.authorization("DESCRIBE", URI, "c") is None
        login.refused([digest("new")], sent=False)
        login.authorization("DESCRIBE", URI, "c")
        login.accepted("")


def kept(nonce: str = "kept", **more: str) -> LoginCache:
    return LoginCache("viewer", "p", kept=parse_challenges([digest(nonce, **more)])[0])


@pytest.mark.parametrize(
    ("header", "verdict"),
    [
        ("", Verdict.RECONNECT),
        ("Negotiate", Verdict.RECONNECT),
        (digest("other"), Verdict.ANSWER),
        (digest("kept"), Verdict.WRONG),
        (digest("kept", stale="true"), Verdict.ANSWER),
    ],
)
def test_a_refused_memory_is_no_wrong_password(header: str, verdict: Verdict) -> None:
    """Unless the camera still names the very nonce: then it is the password that has changed."""
    memory = kept()
    login = Login(memory)
    login.authorization("SETUP", URI, "c")
    assert login.refused([header], sent=True) is verdict
    assert memory.kept is None
    assert Login(memory).authorization("SETUP", URI, "c") is None


def test_nonce_counts_never_repeat_over_connections() -> None:
    memory = kept(qop="auth")
    first, second = Login(memory), Login(memory)
    headers = [login.authorization("PLAY", URI, "c") or "" for login in (first, second)]
    first.accepted("")
    # It is forgotten, but still what the first one has
    second.refused([digest("other")], sent=True)
    headers.append(first.authorization("PLAY", URI, "c") or "")
    assert [auth.parameters(h.partition(" ")[2])["nc"] for h in headers] == [
        "00000001",
        "00000002",
        "00000003",
    ]


def test_nonce_counts_of_a_carried_challenge_go_on_too() -> None:
    """The camera closes after its 401, and gives the next connection the same challenge."""
    cache = LoginCache("u", "p")
    used: list[str] = []
    for _ in range(3):
        first = Login(cache)
        assert first.refused([digest(qop="auth")], sent=False) is Verdict.ANSWER
        second = Login(cache, first.challenge)
        header = second.authorization("DESCRIBE", URI, "c") or ""
        used.append(header.partition("nc=")[2][:8])
        second.accepted("")
    assert len(set(used)) == len(used), used


def test_a_next_nonce_is_used_on_its_own_connection_only() -> None:
    memory = LoginCache("viewer", "p")
    login = logged_in(memory)
    login.accepted('nextnonce="b"')
    assert answered(login, digest("b"))
    assert Login(memory).authorization("DESCRIBE", URI, "c") is None


def test_two_connections_with_one_nonce_share_its_counts() -> None:
    """A camera that keeps its nonce takes a count that comes twice for a replay."""
    memory, numbers = LoginCache("viewer", "p"), []
    for _ in range(2):
        login = Login(memory)
        login.refused([digest("n1", qop="auth")], sent=False)
        header = login.authorization("DESCRIBE", URI, "c") or ""
        numbers.append(auth.parameters(header.partition(" ")[2])["nc"])
    assert numbers == ["00000001", "00000002"]


def test_stale_is_answered_once_over_two_connections() -> None:
    carried = parse_challenges([digest("n2", stale="true")])[0]
    login = Login(LoginCache("viewer", "p"), carried)
    login.authorization("DESCRIBE", URI, "c")
    assert login.refused([digest("n3", stale="true")], sent=True) is Verdict.WRONG


def test_no_second_scheme_after_a_refused_one() -> None:
    login = Login(LoginCache("viewer", "p"))
    login.refused(['Basic realm="cam"'], sent=False)
    assert login.refused([digest("n1", stale="true")], sent=True) is Verdict.WRONG


@pytest.mark.parametrize(
    ("header", "verdict"),
    [
        (digest("n2"), Verdict.WRONG),
        (digest("n2", stale="true"), Verdict.ANSWER),
        (digest("n1"), Verdict.WRONG),
        ("", Verdict.WRONG),
        ('Basic realm="cam"', Verdict.WRONG),
    ],
)
def test_the_wrong_password_is_tried_once(header: str, verdict: Verdict) -> None:
    """No second scheme after a refused one; stale means once more, and no more than once."""
    login = Login(LoginCache("viewer", "wrong"))
    assert login.refused([digest("n1")], sent=False) is Verdict.ANSWER
    assert login.refused([header], sent=True) is verdict
    if verdict is Verdict.ANSWER:
        assert login.refused([digest("n3", stale="true")], sent=True) is Verdict.WRONG


def test_refused_after_it_was_accepted_is_no_wrong_password() -> None:
    """Some say 401 when their sessions are taken; some take each nonce once."""
    memory = LoginCache("viewer", "p")
    login = logged_in(memory)
    assert login.refused([digest("n2")], sent=True) is Verdict.ANSWER
    login.authorization("SETUP", URI, "c")
    login.accepted("")
    assert memory.single_use
    assert login.authorization("PLAY", URI, "c") is None, (
        "each request of such a camera begins without a login"
    )


def test_without_a_username_nothing_is_sent() -> None:
    login = Login(LoginCache("", ""))
    assert login.refused([digest()], sent=False) is Verdict.NO_LOGIN


def test_secrets_are_not_in_texts() -> None:
    assert "s3cret" not in repr(LoginCache("viewer", "s3cret"))
    assert Challenge("basic").label == "basic"


def test_after_a_second_refusal_no_login_is_sent_any_more() -> None:
    """A camera that is full at PLAY gives a new nonce with each refusal.

    It gets one more answer, and no others.
    """
    memory = LoginCache("viewer", "p")
    login = logged_in(memory)
    assert login.refused([digest("n2")], sent=True) is Verdict.ANSWER
    assert login.refused([digest("n3")], sent=True) is Verdict.LATER_REFUSED
    assert login.authorization("TEARDOWN", URI, "c") is None
    assert not memory.single_use


def test_a_kept_nonce_refused_elsewhere_is_not_sent_any_more() -> None:
    memory = kept()
    first, second = Login(memory), Login(memory)
    first.authorization("SETUP", URI, "c")
    first.refused([digest("new")], sent=True)
    assert second.authorization("SETUP", URI, "c") is None


def test_an_algorithm_with_spaces_around_it() -> None:
    login = Login(LoginCache("viewer", "p"))
    login.refused(['Digest realm="cam", nonce="n1", algorithm="MD5 "'], sent=False)
    assert login.authorization("DESCRIBE", URI, "c")
