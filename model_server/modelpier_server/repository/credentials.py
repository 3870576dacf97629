"""Reads what a source needs to know its caller: the files of a mounted Secret, or the environment of a laptop.

Secrets of two origins are never mixed: with a Secret, the environment adds only the endpoint and the region.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from modelpier_server.contract import FailureReason
from modelpier_server.errors import ModelError

PLACES = ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "HF_ENDPOINT")
SECRETS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "HTTP_AUTHORIZATION",
    "HTTP_USERNAME",
    "HTTP_PASSWORD",
    "HF_TOKEN",
)
LARGEST = 64 * 1024


class Credentials(dict[str, str]):
    """Values by the names of `contract.CREDENTIALS_DIR`; never prints them."""

    def __repr__(self) -> str:
        return f"Credentials({sorted(self)})"


def read(folder: Path, name: str | None, environment: Mapping[str, str]) -> Credentials:
    """The credentials named by a plan, or (name None) those of the environment.

    Raises ModelError(DOWNLOAD_FORBIDDEN) when the Secret is not mounted or cannot be read.
    """
    if name is None:
        return Credentials({k: environment[k] for k in (*PLACES, *SECRETS) if environment.get(k)})
    found = Credentials({k: environment[k] for k in PLACES if environment.get(k)})
    if name in {"", ".", ".."} or "/" in name or "\0" in name:
        raise ModelError(FailureReason.DOWNLOAD_FORBIDDEN, "credentials: must be the name of a Secret")
    if not (folder / name).is_dir():
        raise ModelError(
            FailureReason.DOWNLOAD_FORBIDDEN,
            f"credentials: the Secret {name} is not mounted in this pod; check spec.model.credentialsSecret",
        )
    found.update({key: text for key in (*PLACES, *SECRETS) if (text := _value(folder / name / key, name))})
    return found


def _value(path: Path, name: str) -> str:
    try:
        with path.open("rb") as file:
            return file.read(LARGEST).decode().strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        # The error's own text is left out: of a decoding error it holds bytes of the secret.
        raise ModelError(
            FailureReason.DOWNLOAD_FORBIDDEN,
            f"credentials: key {path.name} of the Secret {name} cannot be read as text",
        ) from error
