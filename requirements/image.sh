#!/bin/sh
# Run by the Dockerfiles alone:
#
#   image.sh tools FILE                   /opt/build: what makes wheels, from a locked requirements file
#   image.sh wheel                        /wheels: the wheel of this repository
#   image.sh dependencies FILE "MODULES"  /opt/venv, from a locked requirements file
#   image.sh code                         /opt/code: the wheel, in a folder (and so a layer) of its own: a change of code pushes and pulls little
#
# The last two leave byte code in /opt/bytecode and /opt/code-bytecode, which the image joins (PYTHONPYCACHEPREFIX): base images come without the
# byte code of the standard library, and on a read-only root file system every start would compile it anew. MODULES are imported once for that.
# pip.conf and the certificates that it names are secrets of the build, there while a RUN mounts them.
set -eu
export PIP_CONFIG_FILE=/run/secrets/pip.conf PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 ORT_DISABLE_TELEMETRY=1

tools() {
    python3 -m venv /opt/build
    /opt/build/bin/pip install --quiet --only-binary :all: --require-hashes -r "$1"
}

wheel() {
    /opt/build/bin/pip wheel --quiet --no-deps --no-index --no-build-isolation --wheel-dir /wheels /src
}

dependencies() {
    PYTHONDONTWRITEBYTECODE=1 python3 -m venv /opt/venv
    /opt/venv/bin/pip install --quiet --no-compile --only-binary :all: --require-hashes -r "$1"
    cd /opt/venv/lib/python3*/site-packages
    # Nothing can be installed in an image: it is built anew.
    rm -rf pip pip-* setuptools setuptools-* pkg_resources _distutils_hack distutils-precedence.pth
    rm -f /opt/venv/bin/pip* /opt/venv/bin/[aA]ctivate*
    # Tests, the sources and headers of extensions, and what ONNX Runtime ships for people who train and convert.
    find . -type d \( -name tests -o -name test -o -name __pycache__ \) -prune -exec rm -rf {} +
    find . -type f \( -name '*.pyx' -o -name '*.pxd' -o -name '*.pyi' -o -name '*.c' -o -name '*.h' -o -name '*.a' \) -delete
    for unused in transformers tools quantization datasets; do rm -rf "onnxruntime/$unused"; done
    echo /opt/code > modelpier.pth
    export PYTHONPYCACHEPREFIX=/opt/bytecode
    /opt/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash .
    /opt/venv/bin/python -c "import $2"
}

code() {
    # A pip of this image's own Python: /opt/venv has none any more, and the wheel may have been made by another Python.
    python3 -m venv /opt/pip
    /opt/pip/bin/pip --python /opt/venv/bin/python install --quiet --no-compile --no-deps --no-index --target /opt/code /wheels/*.whl
    PYTHONPYCACHEPREFIX=/opt/code-bytecode PYTHONDONTWRITEBYTECODE=1 \
        /opt/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/code
}

step=$1
shift
"$step" "$@"
