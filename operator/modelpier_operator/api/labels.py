"""Keys of labels, as Kubernetes takes them: for what no pattern in the schema can say of the keys of a map."""

from __future__ import annotations

import re

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
LABEL_REMEDY = "write NAME or PREFIX/NAME, as in node.kubernetes.io/instance-type"


def is_label_key(key: str) -> bool:
    """https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set"""
    prefix, slash, name = key.rpartition("/")
    return _LABEL_NAME.fullmatch(name) is not None and (not slash or is_subdomain(prefix))


def is_subdomain(text: str) -> bool:
    """RFC 1123."""
    return len(text) <= 253 and _SUBDOMAIN.fullmatch(text) is not None
