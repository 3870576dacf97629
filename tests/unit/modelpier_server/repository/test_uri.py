from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpier_server.contract import URI_SCHEMES
from modelpier_server.repository.uri import UriError, parse


@pytest.mark.parametrize(
    ("text", "authority", "path", "folder"),
    [
        ("file:///models/a%20b/model.onnx", "", "/models/a b/model.onnx", False),
        ("pvc://claim-1/resnet/model.onnx", "claim-1", "resnet/model.onnx", False),
        ("pvc://claim/resnet/", "claim", "resnet/", True),
        ("s3://models/resnet50/3/model.onnx", "models", "resnet50/3/model.onnx", False),
        ("s3://models/with space/100%25?#.onnx", "models", "with space/100%25?#.onnx", False),
        ("hf://org/repo/onnx/model.onnx", "org/repo", "onnx/model.onnx", False),
        ("https://host:8443/a%2Fb/m.onnx?sig=x", "host:8443", "a/b/m.onnx", False),
    ],
)
def test_parts(text: str, authority: str, path: str, folder: bool) -> None:
    uri = parse(text)
    assert (uri.authority, uri.path, uri.folder) == (authority, path, folder)


def test_hub_revision() -> None:
    assert parse("hf://org/repo/m.onnx").revision == "main"
    assert parse("hf://org/repo@refs%2Fpr%2F1/m.onnx").revision == "refs/pr/1"


def test_what_is_shown_holds_no_secret() -> None:
    assert parse("https://host/m.onnx?X-Amz-Signature=geheim").shown == "https://host/m.onnx"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ftp://host/m.onnx", "s3://"),
        ("models/m.onnx", "no scheme"),
        ("", "no scheme"),
        ("file://models/m.onnx", "three slashes"),
        ("file:///", "names no file"),
        ("pvc://Claim/m.onnx", "PersistentVolumeClaim"),
        ("pvc://claim/../other/m.onnx", '".."'),
        ("pvc://claim/a//b.onnx", "empty"),
        ("pvc://claim", "names no file"),
        ("pvc://claim/", "names no file"),
        ("s3:///m.onnx", "s3://BUCKET/KEY"),
        ("s3://key:secret@bucket/m.onnx", "credentials Secret"),
        ("s3://bucket/a/./b", '"."'),
        ("hf://repo/m.onnx", "hf://ORG/REPO"),
        ("hf://o rg/repo/m.onnx", "hf://ORG/REPO"),
        ("https://user:geheim@host/m.onnx", "HTTP_PASSWORD"),
        ("https:///m.onnx", "HOST"),
        ("https://host:99999/m.onnx", "not a URL"),
        ("https://host/folder/", "cannot list"),
        ("https://host/%2e%2e/m.onnx", '".."'),
        ("file:///a\nb", "printable"),
        ("s3://bucket/" + "a" * 5000, "at most"),
    ],
)
def test_refusals_name_field_and_remedy(text: str, says: str) -> None:
    with pytest.raises(UriError) as caught:
        parse(text)
    assert str(caught.value).startswith("uri: ")
    assert says in str(caught.value)
    assert "geheim" not in str(caught.value)
    assert "secret@" not in str(caught.value)


@given(st.sampled_from(URI_SCHEMES), st.text(max_size=60))
def test_anything_is_parsed_or_refused(scheme: str, rest: str) -> None:
    try:
        uri = parse(f"{scheme}://{rest}")
    except UriError:
        return
    assert not {"", ".", ".."} & set(uri.path.strip("/").split("/"))
    assert uri.shown
