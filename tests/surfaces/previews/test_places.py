"""Which sandbox and port a request names, by its path or by the host that it asks for; and what names none."""

from __future__ import annotations

from typing import Any

import pytest

from atoll.surfaces.previews.places import BY_HOST, ROUTE, Place, address_of, by_host, by_path, host_of, route_of

DOMAIN, ID = "previews.example", "sess_0123456789ab"
LABEL = ID.replace("_", "-")


def scope(path: bytes | None = b"/a", *headers: tuple[bytes, bytes], text: str = "/a") -> dict[str, Any]:
    return {"type": "http", "raw_path": path, "path": text, "headers": list(headers)}


def asked(host: str, path: bytes | None = b"/a") -> Place | str | None:
    return by_host(scope(path, (b"host", host.encode())), DOMAIN)


def test_a_target_that_is_no_path_names_nothing() -> None:
    assert asked(f"80-{LABEL}.{DOMAIN}", b"http://x/a") == f"80-{LABEL}"


@pytest.mark.parametrize(
    ("path", "port", "rest"),
    [
        (b"/preview/x/80", 80, b""),
        (b"/preview/x/80/", 80, b"/"),
        (b"/preview/x/1//a%2Fb", 1, b"//a%2Fb"),
        (b"/preview/x/65535/\n", 65_535, b"/\n"),
    ],
)
def test_a_path_names_a_sandbox_and_a_port(path: bytes, port: int, rest: bytes) -> None:
    assert by_path(scope(path)) == Place("x", port, rest, f"/preview/x/{port}")


@pytest.mark.parametrize(
    "path",
    [b"/preview/x/0", b"/preview/x/65536", b"/preview/x/80x", b"/preview//80", b"/preview/x", b"/preview/x/-1", b"/a"],
)
def test_no_other_path_is_a_preview_s(path: bytes) -> None:
    assert by_path(scope(path)) is None


def test_a_server_that_tells_no_raw_path_tells_the_decoded_one() -> None:
    assert by_path(scope(None, text="/preview/x/80/b")) == Place("x", 80, b"/b", "/preview/x/80")
    assert by_path(scope(b"/preview/x/80/%62", text="/preview/x/80/b")) == Place("x", 80, b"/%62", "/preview/x/80")


@pytest.mark.parametrize(
    ("label", "port"),
    [(LABEL, None), (f"80-{LABEL}", 80), (f"{LABEL}-80", 80), (f"1-{LABEL}", 1), (f"{LABEL}-65535", 65_535)],
)
@pytest.mark.parametrize("form", ["{}", "{}:8080", "{}.", "{}.:8080"])
def test_a_host_below_the_domain_names_a_sandbox_and_perhaps_a_port(label: str, port: int | None, form: str) -> None:
    host = form.format(f"{label}.{DOMAIN}")
    assert asked(host) == asked(host.upper()) == Place(ID, port, b"/a")


def test_a_request_without_a_path_asks_for_the_root() -> None:
    assert asked(f"80-{LABEL}.{DOMAIN}", None) == Place(ID, 80, b"/")


@pytest.mark.parametrize(
    "label",
    [f"0-{LABEL}", f"65536-{LABEL}", f"{LABEL}-0", f"{LABEL}-65536", f"x-{LABEL}", f"a.80-{LABEL}", "80", "www"],
)
def test_a_label_that_names_nothing_is_told_as_it_is(label: str) -> None:
    assert asked(f"{label}.{DOMAIN}") == label


@pytest.mark.parametrize(
    "host",
    ["", DOMAIN, f"80-{LABEL}", f"80-{LABEL}x{DOMAIN}", f"80-{LABEL}.{DOMAIN}.evil.example", f"80-{LABEL}.example"],
)
def test_n12_a_host_outside_the_domain_is_none_of_it(host: str) -> None:
    assert asked(host) is None


def test_the_host_is_what_its_header_says() -> None:
    headers = ((b"x-forwarded-host", b"evil.example"), (b"host", b"a:1"), (b"host", b"b"))
    assert host_of(scope(b"/", *headers)) == b"a:1"
    assert host_of(scope(b"/", (b"forwarded", b"host=a"))) == b""


@pytest.mark.parametrize(
    ("path", "location"),
    [
        (rb"/\/evil.example", "/%5C/evil.example"),
        (b"/\t/evil.example", "/%09/evil.example"),
        (b"//\\evil.example", "/.//%5Cevil.example"),
        (b"/\x01 \x7f\xff", "/%01%20%7F%FF"),
        (b"/a%2Fb//~[]", "/a%2Fb//~[]"),
        (b"/a\r\nb", "/a%0D%0Ab"),
        (b"", "/"),
    ],
)
def test_n12_no_address_of_a_preview_is_read_as_another_hosts(path: bytes, location: str) -> None:
    assert address_of(Place(ID, 80, path), b"") == location
    below = "/preview/x/80" + location.removeprefix("/.")
    assert address_of(Place(ID, 80, path, "/preview/x/80"), b"x=\t") == below + "?x=%09"
    assert address_of(Place(ID, 80, path), b"b") == location + "?b"


def test_metrics_know_how_it_was_reached() -> None:
    assert (route_of("/preview/x/80"), route_of("")) == (ROUTE, BY_HOST)
