"""What the package mirror of this machine needs, handed to image builds as secrets: no layer ever keeps it.

A machine behind a mirror has a pip configuration and often a certificate authority of its own. Dockerfiles that
mention the secrets `pip.conf` and `ca.crt` find them in /run/secrets while a RUN step runs. A machine that has
neither passes none.
"""

import configparser
from collections.abc import Mapping
from pathlib import Path

from modelpier_cluster.paths import write_text

CA_VARIABLES = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
MIRROR_OPTIONS = ("index-url", "extra-index-url", "trusted-host", "timeout")
INSIDE = "/run/secrets"


def write_secrets(folder: Path, environment: Mapping[str, str]) -> dict[str, Path]:
    """Write the secrets that this machine has into `folder`; returns them by name."""
    options = mirror_options(environment, pip_configurations(environment))
    authority = options.pop("cert", None) or _first_file(environment)
    secrets = {}
    if authority and Path(authority).is_file():
        secrets["ca.crt"] = Path(authority)
        options["cert"] = f"{INSIDE}/ca.crt"
    if options:
        secrets["pip.conf"] = write_text(folder / "pip.conf", render(options), 0o600)
    return secrets


def pip_configurations(environment: Mapping[str, str]) -> list[Path]:
    """Pip's configuration files, the weakest first (https://pip.pypa.io/en/stable/topics/configuration/)."""
    home = Path(environment.get("HOME", "/"))
    files = [Path("/etc/pip.conf"), home / ".pip" / "pip.conf"]
    files.append(Path(environment.get("XDG_CONFIG_HOME", home / ".config")) / "pip" / "pip.conf")
    if "PIP_CONFIG_FILE" in environment:
        files.append(Path(environment["PIP_CONFIG_FILE"]))
    return [file for file in files if file.is_file()]


def mirror_options(environment: Mapping[str, str], files: list[Path]) -> dict[str, str]:
    """The options that say where packages come from: of the files, overridden by PIP_* variables."""
    parser = configparser.RawConfigParser()
    parser.read(files)
    names = (*MIRROR_OPTIONS, "cert")
    found = {name: parser.get("global", name) for name in names if parser.has_option("global", name)}
    variables = {name: environment.get(f"PIP_{name.upper().replace('-', '_')}", "") for name in names}
    return found | {name: value for name, value in variables.items() if value}


def render(options: Mapping[str, str]) -> str:
    return "[global]\n" + "".join(f"{name} = {value}\n" for name, value in options.items())


def _first_file(environment: Mapping[str, str]) -> str | None:
    candidates = (environment.get(name) for name in CA_VARIABLES)
    return next((value for value in candidates if value and Path(value).is_file()), None)
