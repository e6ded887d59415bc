"""What anyone may open: health, the documentation and what it is made of, all from this server alone."""

import re

import httpx
import pytest

from tests.openapi import checked_in
from tests.served import Served, refusal

ADDRESS = re.compile(r'(?:src|href)="([^"]+)"')


def opened(served: Served, path: str) -> httpx.Response:
    response = served.client().get(path)
    assert response.status_code == 200, path
    return response


def test_a_server_says_that_it_is_alive_and_ready(served: Served) -> None:
    for path in ("/health/live", "/health/ready"):
        assert opened(served, path).json() == {"status": "ok"}


def test_the_document_served_is_the_one_checked_in(served: Served) -> None:
    response = opened(served, "/schema/openapi.json")
    assert response.headers["content-type"].startswith("application/")
    assert response.json() == checked_in()


def test_the_documentation_loads_from_this_server_alone(served: Served) -> None:
    page = opened(served, "/docs")
    assert page.headers["content-type"].startswith("text/html")
    addresses = ADDRESS.findall(page.text)
    assert len(addresses) >= 3
    for address in addresses:
        assert address.startswith("/static/")
        assert opened(served, address).content
    assert "/schema/openapi.json" in opened(served, "/static/docs.js").text


def test_the_documentation_has_no_code_in_the_page(served: Served) -> None:
    assert re.search(r"<script[^>]*>[^<]+", opened(served, "/docs").text) is None


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/static/docs.js", "text/javascript"),
        ("/static/vendor/swagger-ui/swagger-ui.css", "text/css"),
        ("/static/vendor/swagger-ui/swagger-ui-bundle.js", "text/javascript"),
    ],
)
def test_static_files_come_with_their_type(served: Served, path: str, media_type: str) -> None:
    found = opened(served, path).headers["content-type"].partition(";")[0]
    assert found in {media_type, media_type.replace("text/", "application/")}


@pytest.mark.parametrize(
    "path",
    [
        "/static/nothing.js",
        "/static/",
        "/static/../app.py",
        "/static/..%2fapp.py",
        "/static/%2e%2e/app.py",
        "/static/vendor/../../app.py",
        "/static//etc/passwd",
        "/static/vendor",
    ],
)
def test_nothing_but_static_files_is_under_static(served: Served, path: str) -> None:
    refusal(
        served.http.send(served.http.build_request("GET", httpx.URL(served.base_url, raw_path=path.encode()))),
        404,
        "not_found",
    )
