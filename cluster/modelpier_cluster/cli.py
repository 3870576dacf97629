"""The command line. Each verb is a function below; hidden verbs run inside what the driver started itself."""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from modelpier_cluster import lifecycle
from modelpier_cluster.addresses import DEFAULT_NAME, node_names
from modelpier_cluster.build import KUBE, MODULES, build
from modelpier_cluster.commands import search_path
from modelpier_cluster.errors import ClusterError
from modelpier_cluster.guarded import find_detached
from modelpier_cluster.handover import AS_ROOT, take_environment
from modelpier_cluster.hidden import HIDDEN
from modelpier_cluster.images import BASE_IMAGE, ImageBuild, build_image, ensure_base, push, unpacked_size
from modelpier_cluster.loopback import ControlPlane
from modelpier_cluster.nest import control_plane_nest, node_nest
from modelpier_cluster.node_config import seconds
from modelpier_cluster.object_store import answers
from modelpier_cluster.privilege import (
    CLUSTER_PROGRAMS,
    IMAGE_PROGRAMS,
    become_root,
    ensure_packages,
    is_root,
    require_linux,
)
from modelpier_cluster.progress import Progress, wait_for
from modelpier_cluster.registry import Registry, split
from modelpier_cluster.spec import ClusterSpec, Options, cluster_folder
from modelpier_cluster.status import environment, render, status

Arguments = argparse.Namespace
PROXY_MODES = ("iptables", "nftables")


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="cluster.py", description="A real Kubernetes cluster on this machine.")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, run: Callable[[Arguments], None], summary: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=summary, description=summary)
        sub.set_defaults(run=run)
        sub.add_argument("--name", default=os.environ.get("MODELPIER_CLUSTER_NAME", DEFAULT_NAME), help="which cluster")
        return sub

    _up_options(verb("up", _up, "start the cluster, or leave it running; waits until it is ready"))
    sub = verb("down", _down, "remove the cluster with everything that belongs to it, also after a crash")
    sub.add_argument("--purge", action="store_true", help="forget the contents of its registry, too")
    sub = verb("status", _status, "what runs and where it answers; exit status 1 unless it is ready")
    sub.add_argument("--output", choices=["text", "json"], default="text")
    sub = verb("kubeconfig", _kubeconfig, "print the path of the kubeconfig")
    sub.add_argument("form", nargs="?", choices=("path", "env"), default="path", help="env: as the verb env")
    sub = verb("exec", _exec, "run a command inside a node (n1, n2, ...) or the control plane (cp)")
    sub.add_argument("where")
    sub.add_argument("command", nargs=argparse.REMAINDER)
    verb("env", _env, "print lines for eval: kubeconfig, kubectl, helm, registry, object store")
    sub = verb("load", _load, "put an image (of `image build`, or an archive) into the registry; prints its reference")
    sub.add_argument("image", help="NAME[:TAG] in the store of `image build`, or the path of a docker or OCI archive")
    sub.add_argument("--as", dest="reference", metavar="NAME:TAG", help="under another name")
    _image_verbs(verbs)
    for name, run, summary in (("stop", _stop, "switch a node off"), ("start", _start, "switch a node on, or add one")):
        sub = verb(name, run, summary)
        sub.add_argument("node")
        _timeout(sub)
    verb("build", _build, "build the programs that are not in the cache; prints their folder")
    return top


def _image_verbs(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    images = verbs.add_parser("image", help="build images without a daemon").add_subparsers(
        required=True, metavar="VERB"
    )
    summary = "build an image by buildah; BASE_IMAGE and GPU_BASE_IMAGE default to the local base"
    detail = (
        f"{summary} ({BASE_IMAGE}). Secrets pip.conf and ca.crt are passed where this machine has them. Needs root."
    )
    sub = images.add_parser("build", help=summary, description=detail)
    sub.add_argument("context", type=Path, help="folder that COPY sees")
    sub.add_argument("tag", help="NAME:TAG")
    sub.add_argument("--file", type=Path, help="the Dockerfile (CONTEXT/Dockerfile)")
    sub.add_argument("--target", help="stage to build (the last)")
    sub.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    sub.set_defaults(run=_image_build)
    images.add_parser("base", help=f"make the base image {BASE_IMAGE} now").set_defaults(run=_image_base)


def _timeout(sub: argparse.ArgumentParser) -> None:
    default = lifecycle.READY_SECONDS
    sub.add_argument("--timeout", type=float, default=default, help=f"seconds to wait for each part ({default:g})")


def _up_options(sub: argparse.ArgumentParser) -> None:
    default = Options()
    env = os.environ.get
    # argparse converts defaults that are text, so that a wrong variable stops `up` and no other verb.
    nodes = env("MODELPIER_CLUSTER_NODES", "1")
    sub.add_argument("--nodes", type=_number("MODELPIER_CLUSTER_NODES"), default=nodes, help="1 to 9")
    gpus = env("MODELPIER_CLUSTER_GPUS", str(default.gpus))
    _timeout(sub)
    gpu_number = _number("MODELPIER_CLUSTER_GPUS")
    sub.add_argument("--gpus", type=gpu_number, default=gpus, help="pretended GPUs per node (8)")
    sub.add_argument("--control-plane-only", action="store_true", help="no root, no nodes, on 127.0.0.1")
    grace = env("MODELPIER_CLUSTER_NODE_MONITOR_GRACE", default.node_monitor_grace)
    sub.add_argument("--node-monitor-grace", default=grace, help="silence after which a node is NotReady (12s)")
    proxy = env("MODELPIER_CLUSTER_PROXY_MODE", default.proxy_mode)
    modes = " or ".join(PROXY_MODES)
    sub.add_argument("--proxy-mode", type=_proxy_mode, default=proxy, metavar="MODE", help=f"{modes} ({proxy})")
    sub.add_argument("--api-server-argument", action="append", default=[], metavar="--FLAG=VALUE")
    gates = env("MODELPIER_CLUSTER_KUBELET_FEATURE_GATES", "").replace(",", " ").split()
    sub.add_argument("--kubelet-feature-gate", action="append", default=gates, metavar="NAME=true|false")


def _number(variable: str) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if not (text.isascii() and text.isdigit()):
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number (the flag's value, or that of {variable})")
        return int(text)

    return convert


def _proxy_mode(text: str) -> str:
    if text not in PROXY_MODES:
        modes = " or ".join(PROXY_MODES)
        raise argparse.ArgumentTypeError(f"{text!r}: {modes} (the flag's value, or MODELPIER_CLUSTER_PROXY_MODE's)")
    return text


def _api_server_arguments(arguments: Arguments) -> tuple[str, ...]:
    """Those of the environment, then those of the command line. Raises ClusterError."""
    variable = "MODELPIER_CLUSTER_API_SERVER_ARGUMENTS"
    try:
        return (*shlex.split(os.environ.get(variable, "")), *arguments.api_server_argument)
    except ValueError as error:
        raise ClusterError(f"{variable}: {error}; quote it as a shell would read it") from error


def _options(arguments: Arguments) -> Options:
    return Options(
        gpus=arguments.gpus,
        node_monitor_grace=arguments.node_monitor_grace,
        proxy_mode=arguments.proxy_mode,
        api_server_arguments=_api_server_arguments(arguments),
        kubelet_feature_gates=tuple(arguments.kubelet_feature_gate),
    )


def _up(arguments: Arguments) -> None:
    require_linux()
    folder = cluster_folder(arguments.name)
    if arguments.control_plane_only:
        _up_control_plane(arguments)
        return
    node_names(arguments.nodes)
    seconds(arguments.node_monitor_grace)
    progress = Progress()
    built = str(build(progress))
    become_root(sys.argv[1:], {"MODELPIER_CLUSTER_PROGRAMS": built})
    ensure_packages(progress, CLUSTER_PROGRAMS)
    spec = ClusterSpec(arguments.name, None, arguments.nodes, built, _options(arguments))
    lifecycle.up(folder, spec, progress, arguments.timeout)
    progress.say(f"cluster {arguments.name} is up")
    print(render(status(folder)))


def _up_control_plane(arguments: Arguments) -> None:
    folder, progress = cluster_folder(arguments.name), Progress()
    built = str(build(progress, [KUBE]))
    if not find_detached(folder.path):
        lifecycle.down(folder)
        folder.logs.mkdir(parents=True)
        folder.write_spec(ClusterSpec(arguments.name, None, 0, built, _options(arguments)))
        options = _options(arguments)
        ControlPlane(
            controller_manager=True,
            scheduler=True,
            folder=folder.path,
            options=options,
            detached=True,
            timeout=arguments.timeout,
        ).start()
    progress.say(f"control plane {arguments.name} is up")
    print(render(status(folder)))


def _down(arguments: Arguments) -> None:
    folder, progress = cluster_folder(arguments.name), Progress()
    if control_plane_nest(folder.path).outer() is not None or _has_slot(arguments):
        become_root(sys.argv[1:])
    try:
        lifecycle.down(folder, purge=arguments.purge)
    except PermissionError:  # what root has left: files of a start that was interrupted, the registry's contents
        become_root(sys.argv[1:])
        raise
    progress.say(f"cluster {arguments.name} is down")


def _has_slot(arguments: Arguments) -> bool:
    try:
        return cluster_folder(arguments.name).read_spec().slot is not None
    except ClusterError:
        return False


def _status(arguments: Arguments) -> None:
    report = status(cluster_folder(arguments.name))
    print(json.dumps(report, indent=1) if arguments.output == "json" else render(report))
    if not report["ready"]:
        sys.exit(1)


def _env(arguments: Arguments) -> None:
    for name, value in environment(status(cluster_folder(arguments.name))).items():
        print(f"export {name}={shlex.quote(value)}")


def _kubeconfig(arguments: Arguments) -> None:
    if arguments.form == "env":
        _env(arguments)
        return
    folder = cluster_folder(arguments.name)
    folder.read_spec()
    print(folder.kubeconfig())


def _exec(arguments: Arguments) -> None:
    become_root(sys.argv[1:])
    path = cluster_folder(arguments.name).path
    nest = control_plane_nest(path) if arguments.where == "cp" else node_nest(path, arguments.where)
    command = [*nest.enter(), *arguments.command]
    os.execvp(command[0], command)  # noqa: S606


def _stop(arguments: Arguments) -> None:
    become_root(sys.argv[1:])
    lifecycle.stop_node(cluster_folder(arguments.name), arguments.node)


def _start(arguments: Arguments) -> None:
    become_root(sys.argv[1:])
    lifecycle.start_node(cluster_folder(arguments.name), arguments.node, Progress(), arguments.timeout)


def _load(arguments: Arguments) -> None:
    folder = cluster_folder(arguments.name)
    registry = folder.read_spec().addresses().registry
    wait_for("the registry", lambda: answers(f"http://{registry}/v2/"), 30, "Is the cluster up? `status` tells.")
    archive = Path(arguments.image)
    if archive.is_file():
        print(Registry(registry).push_archive(archive, arguments.reference))
        return
    if arguments.image.startswith((".", "/")):
        raise ClusterError(f"there is no file {arguments.image}")
    name = ":".join(split(arguments.reference or arguments.image))
    become_root(sys.argv[1:])
    push(arguments.image, registry, name)
    packed = Registry(registry).packed_size(name) / 1e6
    Progress().say(f"{name}: {unpacked_size(arguments.image)} on disk, {packed:.0f} MB to pull")
    print(f"{registry}/{name}")


def _image_build(arguments: Arguments) -> None:
    parts = (arguments.context, arguments.tag, arguments.file, arguments.target, tuple(arguments.build_arg))
    wanted = ImageBuild(*parts)
    wanted.dockerfile()  # before a password is asked for
    become_root(sys.argv[1:])
    progress = Progress()
    ensure_packages(progress, IMAGE_PROGRAMS)
    build_image(wanted, progress)


def _image_base(arguments: Arguments) -> None:
    del arguments
    become_root(sys.argv[1:])
    progress = Progress()
    ensure_packages(progress, IMAGE_PROGRAMS)
    ensure_base(progress)


def _build(arguments: Arguments) -> None:
    del arguments
    require_linux()
    progress = Progress()
    if is_root():
        # Whoever builds means to start a cluster; a user without root is asked for a password by `up`, once.
        ensure_packages(progress, CLUSTER_PROGRAMS | IMAGE_PROGRAMS)
    print(build(progress, MODULES))


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    try:
        if len(argv) > 1 and argv[0] == AS_ROOT:
            os.environ.update(take_environment(Path(argv[1]), os.environ.get("SUDO_UID")))
            argv = argv[2:]
        os.environ["PATH"] = search_path()
        if argv and argv[0] in HIDDEN:
            HIDDEN[argv[0]](Path(argv[1]), argv[2:])
        else:
            arguments = parser().parse_args(argv)
            arguments.run(arguments)
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except (ClusterError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: `down` removes what was started", file=sys.stderr)
        return 130
    return 0
