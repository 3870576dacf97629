#!/bin/sh
# Run by the Dockerfiles alone: `image.sh dependencies FILE "MODULES"` makes /opt/venv from a locked requirements file,
# `image.sh code` puts the wheel in /wheels into /opt/code, a folder (and so a layer) of its own: a change of code pushes and pulls little.
#
# Both leave byte code in /opt/bytecode (PYTHONPYCACHEPREFIX): base images come without the byte code of the standard library, and on a
# read-only root file system every start would compile it anew. MODULES are imported once for that.
set -eu

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
    rm -rf "$PYTHONPYCACHEPREFIX"
    /opt/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash .
    /opt/venv/bin/python -c "import $2"
}

code() {
    /opt/build/bin/pip --python /opt/venv/bin/python install --quiet --no-compile --no-deps --no-index --target /opt/code /wheels/*.whl
    /opt/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/code
}

step=$1
shift
"$step" "$@"
