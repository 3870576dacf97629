"""A Python file that lies beside a model and does before and after it what no graph can do.

`runtime.load`, and the process of an isolated model, use it where the model's options say so, and only there: the file
runs with all rights of its process. `hooks.py` at the top of the model's folder has `preprocess(inputs)` or
`postprocess(outputs)` or both; each takes arrays by name and returns arrays by name. Where the callers' tensors are
others than the graph's it says so in `INPUTS` or `OUTPUTS`, lists of {"name", "datatype", "shape"}.

Hooks never run on the event loop. They are ended like runs are: an exception is thrown into their thread, which Python
raises before its next instruction; a call that stays within C ends when it returns.
"""

from __future__ import annotations

import ctypes
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from modelpier_server.contract import FailureReason, TensorSpec
from modelpier_server.errors import Cancelled, InferenceFailed, InvalidRequest, ModelError, OutOfMemory
from modelpier_server.protocol.datatypes import DATATYPES
from modelpier_server.runtime.session import Control, Session
from modelpier_server.runtime.tensors import Axes

FILE = "hooks.py"
LARGEST = 1 << 20
LOAD_LIMIT = 60.0
"""Seconds that the file may take to be imported."""
CALL_LIMIT = 60.0
"""Seconds of one run where nobody else watches over it: in warm-up."""
LONGEST_TEXT = 1000

Arrays = Mapping[str, npt.NDArray[Any]]
Hook = Callable[[dict[str, npt.NDArray[Any]]], Any]
log = logging.getLogger(__name__)
_throw = ctypes.pythonapi.PyThreadState_SetAsyncExc


class _Ended(BaseException):
    """Thrown into a hook, whose own `except Exception` must not catch it."""


class _Call:
    """One call of the model's code that another thread can end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: ctypes.c_ulong | None = None

    def __call__(self, function: Callable[[], Any]) -> Any:
        """Raises Cancelled where it was ended."""
        try:
            try:
                self._thread = ctypes.c_ulong(threading.get_ident())
                return function()
            finally:
                self._leave()
        except _Ended as error:
            self._leave()
            raise Cancelled("the hook was ended before it had a result") from error

    def end(self) -> None:
        with self._lock:
            if self._thread is not None:
                _throw(self._thread, ctypes.py_object(_Ended))

    def _leave(self) -> None:
        """Nothing is thrown any more, and what was thrown and not raised yet is taken back."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            _throw(thread, None)


def wrap(session: Session, folder: Path) -> Session:
    """Blocking. Raises ModelError(MODEL_INVALID)."""
    module = _load(folder / FILE)
    try:
        return Hooked(session, module)
    except (KeyError, TypeError, ValueError) as error:
        text = f'{FILE}: INPUTS and OUTPUTS must be lists of {{"name", "datatype", "shape"}}: {error!r}'
        raise ModelError(FailureReason.MODEL_INVALID, text[:LONGEST_TEXT]) from error


def _load(path: Path) -> ModuleType:
    try:
        with path.open("rb") as file:
            source = file.read(LARGEST + 1)
    except FileNotFoundError as error:
        text = f"server.hooks is on, but the model's folder has no {FILE}: add it, or switch server.hooks off"
        raise ModelError(FailureReason.MODEL_INVALID, text) from error
    if len(source) > LARGEST:
        raise ModelError(FailureReason.MODEL_INVALID, f"{FILE}: larger than {LARGEST} bytes")
    module = ModuleType("modelpier_hooks")
    module.__file__ = str(path)
    call = _Call()
    timer = _timer(LOAD_LIMIT, call.end)
    try:
        call(lambda: exec(compile(source, FILE, "exec"), module.__dict__))  # noqa: S102 - what the option is about
    except Cancelled as error:
        text = f"{FILE}: its import takes more than {LOAD_LIMIT:g} s"
        raise ModelError(FailureReason.MODEL_INVALID, text) from error
    except (Exception, SystemExit) as error:  # an edge: it is somebody else's code
        raise ModelError(FailureReason.MODEL_INVALID, f"{FILE}: {_told(error)}") from error
    finally:
        timer.cancel()
    if not any(callable(getattr(module, name, None)) for name in ("preprocess", "postprocess")):
        raise ModelError(
            FailureReason.MODEL_INVALID, f"{FILE}: has neither preprocess(inputs) nor postprocess(outputs)"
        )
    return module


def _timer(seconds: float, action: Callable[[], None]) -> threading.Timer:
    timer = threading.Timer(seconds, action)
    timer.daemon = True
    timer.start()
    return timer


class Hooked:
    """See `runtime.session.Session`."""

    caller_only = False
    on_loop = False
    joins = False

    def __init__(self, session: Session, module: ModuleType) -> None:
        """Raises KeyError, TypeError or ValueError for what is no description of tensors."""
        self._session = session
        self._before: Hook | None = getattr(module, "preprocess", None)
        self._after: Hook | None = getattr(module, "postprocess", None)
        own = _specs(getattr(module, "INPUTS", None)), _specs(getattr(module, "OUTPUTS", None))
        if (own[0] and self._before is None) or (own[1] and self._after is None):
            raise ValueError("INPUTS need a preprocess, and OUTPUTS a postprocess")
        self.inputs, self.outputs = own[0] or session.inputs, own[1] or session.outputs
        # Symbols of the graph bind inputs to each other, which those of a hook are not.
        self.axes: Mapping[str, Axes] = {**session.axes, **_axes((*own[0], *own[1]))}
        self.provider, self.instances, self.lost = session.provider, session.instances, session.lost

    def run(
        self, feeds: Mapping[str, npt.NDArray[Any]], outputs: Sequence[str], control: Control | None = None
    ) -> list[npt.NDArray[Any]]:
        if control is not None:
            return self._run(feeds, outputs, control)
        control = Control()
        timer = _timer(CALL_LIMIT, control.abort)
        try:
            return self._run(feeds, outputs, control)
        except Cancelled as error:
            raise InferenceFailed(f"the run took more than {CALL_LIMIT:g} s") from error
        finally:
            timer.cancel()

    def _run(self, feeds: Arrays, outputs: Sequence[str], control: Control) -> list[npt.NDArray[Any]]:
        if self._before is not None:
            feeds = self._hook(self._before, feeds, self._session.inputs, control)
        if self._after is None:
            return self._session.run(feeds, outputs, control)
        names = [spec.name for spec in self._session.outputs]
        arrays = self._session.run(feeds, names, control)
        made = self._hook(self._after, dict(zip(names, arrays, strict=True)), self.outputs, control)
        return [made[name] for name in outputs]

    def _hook(self, hook: Hook, arrays: Arrays, specs: Sequence[TensorSpec], control: Control) -> Arrays:
        """Raises InvalidRequest for a ValueError of `preprocess`, InferenceFailed for all else, Cancelled."""
        call = _Call()
        name = "preprocess" if hook is self._before else "postprocess"
        # What it may write to must be nobody else's: views of the request's body, and tensors in shared memory.
        given = {key: array if array.flags.writeable else array.copy() for key, array in arrays.items()}
        control.handle = None  # of a run before: the session makes its own again
        try:
            made = call(partial(_begun, control, call, hook, given))
        except Cancelled:
            raise
        except MemoryError as error:
            raise OutOfMemory(f"{name} of {FILE}: {_told(error)}") from error
        except ValueError as error:
            if hook is self._before:
                raise InvalidRequest(f"the model's {name} refuses the input: {str(error)[:LONGEST_TEXT]}") from error
            raise self._failed(name, error) from error
        except (Exception, SystemExit) as error:  # an edge: it is somebody else's code
            raise self._failed(name, error) from error
        if text := _objection(made, specs):
            raise InferenceFailed(f"{name} of {FILE}: {text}")
        return {spec.name: made[spec.name] for spec in specs}

    def _failed(self, name: str, error: BaseException) -> InferenceFailed:
        log.warning("a hook failed", exc_info=error)
        return InferenceFailed(f"{name} of {FILE}: {_told(error)}")

    def prepare(self, most: int) -> None:
        self._session.prepare(most)

    def close(self) -> None:
        self._session.close()


def _begun(control: Control, call: _Call, hook: Hook, arrays: dict[str, npt.NDArray[Any]]) -> Any:
    control.begin(call.end)
    return hook(arrays)


def _objection(made: Any, specs: Sequence[TensorSpec]) -> str:
    """What is wrong with what a hook returned; empty if nothing is."""
    names = [spec.name for spec in specs]
    if not isinstance(made, dict) or made.keys() != {*names}:
        got = sorted(map(str, made))[:20] if isinstance(made, dict) else type(made).__name__
        return f"must return a dict with {names}, and returned {got}"
    for spec in specs:
        array, wanted = made[spec.name], DATATYPES[spec.datatype].numpy
        if not isinstance(array, np.ndarray) or array.dtype != wanted:
            got = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
            return f"'{spec.name}' must be an array of {wanted}, and is {got}"
        if len(array.shape) != len(spec.shape) or any(
            want not in {-1, size} for size, want in zip(array.shape, spec.shape, strict=True)
        ):
            return f"'{spec.name}' must have the shape {list(spec.shape)}, and has {list(array.shape)}"
    return ""


def _specs(declared: Any) -> tuple[TensorSpec, ...]:
    """Raises KeyError, TypeError or ValueError."""
    if declared is None:
        return ()
    specs = tuple(TensorSpec(str(d["name"]), str(d["datatype"]), tuple(int(s) for s in d["shape"])) for d in declared)
    if unknown := [spec.datatype for spec in specs if spec.datatype not in DATATYPES]:
        raise ValueError(f"datatype {unknown[0]!r} is none of {', '.join(DATATYPES)}")
    if len({spec.name for spec in specs}) != len(specs) or any(size < -1 for spec in specs for size in spec.shape):
        raise ValueError("names must differ, and sizes be -1 or more")
    return specs


def _axes(specs: Sequence[TensorSpec]) -> dict[str, Axes]:
    return {spec.name: tuple(None if size < 0 else size for size in spec.shape) for spec in specs}


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:LONGEST_TEXT]
