"""A client of object stores as small as one can be: it signs as boto does, written anew from the reference."""

from __future__ import annotations

import base64
import hashlib
import hmac
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any
from urllib.parse import quote

import httpx2

BUCKET = "testbase-workspaces"


@dataclass
class Client:
    """Whoever has that pair."""

    url: str
    access: str
    secret: str
    http: httpx2.AsyncClient

    def signed(self, method: str, path: str, query: str = "", scheme: str = "GOOG1", **headers: str) -> dict[str, str]:
        """The headers of that request; underlines in their names are dashes."""
        told = {"date": formatdate(usegmt=True)} | {name.replace("_", "-"): text for name, text in headers.items()}
        prefix = "x-goog-" if scheme == "GOOG1" else "x-amz-"
        lines = [method, told.get("content-md5", ""), told.get("content-type", ""), told["date"]]
        lines += [f"{name}:{told[name]}" for name in sorted(told) if name.startswith(prefix)]
        signature = hmac.new(self.secret.encode(), "\n".join([*lines, path + query]).encode(), hashlib.sha1).digest()
        return told | {"authorization": f"{scheme} {self.access}:{base64.b64encode(signature).decode()}"}

    async def call(self, method: str, key: str, *, query: str = "", content: bytes = b"", **headers: str) -> Any:
        """`key` is quoted here; `query` comes as it is, and is not signed."""
        parts = [quote(part, safe="~") if part.strip(".") else part.replace(".", "%2E") for part in key.split("/")]
        path = "/".join(["", BUCKET, *parts])
        signed = self.signed(method, path, **headers)
        return await self.http.request(method, self.url + path + query, headers=signed, content=content)

    async def put(self, key: str, content: bytes, **headers: str) -> Any:
        md5 = base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
        return await self.call("PUT", key, content=content, **({"content_md5": md5} | headers))

    async def keys(self, query: str) -> list[str]:
        """The keys and prefixes of a list, in the order of the answer."""
        answer = await self.call("GET", "", query=f"?{query}")
        assert answer.status_code == 200, answer.text
        tree = ElementTree.fromstring(answer.text)
        return [
            one.text or ""
            for one in tree.iter()
            if one.tag.endswith("}Key") or (one.tag.endswith("}Prefix") and one in _within(tree, "CommonPrefixes"))
        ]


def _within(tree: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [child for parent in tree.iter() if parent.tag.endswith(f"}}{name}") for child in parent]


def code(answer: Any) -> str:
    """The code of an error, which must be well-formed XML."""
    found = ElementTree.fromstring(answer.text).find("Code")
    return "" if found is None else found.text or ""
