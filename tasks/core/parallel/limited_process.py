"""Function calls in a child process with limits on time and memory.

For parsers of untrusted files that have no limits of their own: a native crash, an infinite loop or
a decompression bomb ends only the child, and the caller gets one line. Arguments and results are
sent as JSON, never as pickle. A child without heavy imports takes about 0.1 s.
"""

import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from tasks.core import errors
from tasks.core.parallel.process import die_with_parent

_PACKAGE_HOME = Path(__file__).resolve().parents[3]
_MAX_RESULT_BYTES = 64 << 20
_MIB = 1 << 20


class LimitError(errors.DataError):
    """A call in a child process exceeded a limit or crashed: `kind` is time, memory or crash."""

    def __init__(self, text: str, kind: str = "crash") -> None:
        super().__init__(text)
        self.kind = kind


def call_limited(target: str, *arguments: Any, seconds: float, memory_mb: int) -> Any:
    """Call a function of the project in a child process.

    Parameters
    ----------
    target
        `module:function`, such as `flows.intake.archives:list_members`. Its arguments and its
        result must be JSON values.
    seconds
        Wall-clock limit.
    memory_mb
        Limit of the child's address space in MiB; Python itself needs about 100, numpy 300,
        torch and onnxruntime 2,000 or more.

    Raises
    ------
    LimitError
        A limit was exceeded, or the child crashed.
    AffectGapError
        The error that the function raised, with the same type and text.
    """
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", f"from {__name__} import run_child; run_child()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=[writing],
        cwd=_PACKAGE_HOME,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    os.close(writing)
    alarm = _Alarm(process, seconds)
    try:
        with alarm:
            _send(process, [target, arguments, memory_mb, writing, os.getpid()])
            with os.fdopen(reading, "rb") as pipe:
                answer = pipe.read(_MAX_RESULT_BYTES + 1)
            if len(answer) > _MAX_RESULT_BYTES:
                process.kill()
            code = process.wait()
    finally:
        process.kill()
        process.wait()
    if alarm.rang:
        raise LimitError(f"took longer than {seconds:g} s", "time")
    if code or not answer or len(answer) > _MAX_RESULT_BYTES:
        raise LimitError(f"ended its reader ({_end_of(code)})")
    return _unpacked(json.loads(answer), memory_mb)


class _Alarm:
    """Kills a process after a time limit, from a thread, since reading a pipe blocks."""

    def __init__(self, process: "subprocess.Popen[bytes]", seconds: float) -> None:
        self.rang = False
        self._process = process
        self._timer = threading.Timer(seconds, self._ring)
        self._timer.daemon = True

    def _ring(self) -> None:
        self.rang = self._process.poll() is None
        self._process.kill()

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_error: object) -> None:
        self._timer.cancel()


def _send(process: "subprocess.Popen[bytes]", call: list[Any]) -> None:
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps(call).encode())
        process.stdin.close()
    except BrokenPipeError:
        pass  # it has ended; its exit code says why


def _end_of(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def _unpacked(answer: dict[str, Any], memory_mb: int) -> Any:
    if "result" in answer:
        return answer["result"]
    name, text = answer["error"], answer["text"]
    if name == "MemoryError":
        raise LimitError(f"took more than {memory_mb} MiB of memory", "memory")
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, errors.AffectGapError):
        raise kind(text)
    raise LimitError(f"ended its reader ({name}: {text})")


def run_child() -> None:
    """Run the call that is read from the standard input (in the child process)."""
    target, arguments, memory_mb, pipe, parent_pid = json.loads(sys.stdin.buffer.read())
    die_with_parent(parent_pid)
    resource.setrlimit(resource.RLIMIT_AS, (memory_mb * _MIB, memory_mb * _MIB))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    module, _, function = target.partition(":")
    try:
        result = getattr(importlib.import_module(module), function)(*arguments)
        content = json.dumps({"result": result})
    except MemoryError:
        content = json.dumps({"error": "MemoryError", "text": ""})
    except Exception as error:  # noqa: BLE001 - any error is sent to the caller
        text = " ".join(str(error).split())[:2000]
        content = json.dumps({"error": type(error).__name__, "text": text})
    with os.fdopen(pipe, "wb") as out:
        out.write(content.encode())
