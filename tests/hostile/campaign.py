"""Seeded mutation campaigns: many damaged inputs of a kind, each under limits of time and memory.

A case is a function at module level, `(random, folder) -> outcome`: it builds one hostile input
from a seeded `Random`, gives it to the project and returns a short word for what happened, such as
"accepted" or the reason of a rejection. Whatever it raises is a finding, and so are a hang, a crash
of the process and an input for which memory runs out. Cases run one after the other in a child
process; one that dies is replaced, and its seed is named. To repeat one with its full traceback:

    PYTHONPATH=.:tests python -m hostile.campaign hostile.images:check_image 123
"""

import faulthandler
import importlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import NamedTuple

from tasks.core.errors import AffectGapError, ConservationError
from tasks.core.parallel.execution import cpu_count
from tasks.core.parallel.process import die_with_parent
from tasks.core.text import printable

Case = Callable[[Random, Path], str]

_ROOT = Path(__file__).resolve().parents[2]
_MIB = 1 << 20
_START_S = 300.0  # importing what the cases need, on a machine that is busy
_SILENT_S = 60.0  # on the wall without an answer: a wait for something that never comes
_PARALLEL_FROM = 1000  # cases; for fewer a second process takes longer to start than it saves
_MAX_FINDINGS = 20  # then a campaign stops
_FRAMES = 4  # of a traceback that a finding quotes
_MEMORY_WORDS = ("MemoryError", "bad_alloc", "cannot allocate memory", "out of memory")


class Finding(NamedTuple):
    """A case that broke a property."""

    seed: int
    text: str


def run_campaign(
    case: str, count: int, *, cpu_s: float = 5.0, memory_mb: int = 300, first_seed: int = 0
) -> Counter[str]:
    """Run a case with `count` seeds; fail with every finding, its seed and how to repeat it.

    Parameters
    ----------
    case
        `module:function`, such as `hostile.images:check_image`.
    count, first_seed
        The seeds are `first_seed` and the `count - 1` that follow.
    cpu_s
        Processor time that one case may take; a busy machine does not change it.
    memory_mb
        Address space that cases may add to what the process has once the module is imported.

    Returns
    -------
    Counter
        Outcome to the number of cases that ended so.
    """
    __tracebackhide__ = True  # the findings are what matters
    seeds = range(first_seed, first_seed + count)
    workers = cpu_count() if count >= _PARALLEL_FROM else 1
    parts = [seeds[start::workers] for start in range(workers)]
    with ThreadPoolExecutor(workers) as threads:
        reports = list(threads.map(lambda part: _run_part(case, part, cpu_s, memory_mb), parts))
    findings = sorted(finding for _, found in reports for finding in found)
    outcomes = sum((outcome for outcome, _ in reports), Counter[str]())
    if findings:
        lines = [f"{case} {seed}: {text}" for seed, text in findings[:_MAX_FINDINGS]]
        repeat = f"PYTHONPATH=.:tests python -m hostile.campaign {case} {findings[0].seed}"
        raise AssertionError("\n".join([f"{len(findings)} findings", *lines, f"repeat: {repeat}"]))
    assert outcomes.total() == count, outcomes
    return outcomes


# Mutations ---------------------------------------------------------------------------------------


def mutate(content: bytes, random: Random, max_changes: int = 4) -> bytes:
    """Damage bytes as copies, disks and attackers do: one to `max_changes` times in a row."""
    for _ in range(random.randint(1, max_changes)):
        content = random.choice(_MUTATIONS)(content, random)
    return content


def _flip_bits(content: bytes, random: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 8, 64)) if changed else 0):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _flip_in_header(content: bytes, random: Random) -> bytes:
    head = random.choice((16, 64, 512))
    return _flip_bits(content[:head], random) + content[head:]


def _truncate(content: bytes, random: Random) -> bytes:
    return content[: random.randint(0, len(content))]


def _remove(content: bytes, random: Random) -> bytes:
    start, length = _span(content, random)
    return content[:start] + content[start + length :]


def _repeat(content: bytes, random: Random) -> bytes:
    start, length = _span(content, random)
    return content[: start + length] + content[start:]


def _overwrite(content: bytes, random: Random) -> bytes:
    start, length = _span(content, random)
    filler = random.choice((b"\0" * length, b"\xff" * length, random.randbytes(length)))
    return content[:start] + filler + content[start + length :]


def _overwrite_number(content: bytes, random: Random) -> bytes:
    """Put a number that breaks arithmetic where a length, an offset or a count may be."""
    size = random.choice((1, 2, 4, 8))
    most = (1 << 8 * size) - 1
    number = random.choice((0, 1, most, most >> 1, (most >> 1) + 1, random.randint(0, most)))
    at = random.randint(0, max(0, len(content) - size))
    raw = number.to_bytes(size, random.choice(("big", "little")))
    return content[:at] + raw + content[at + size :]


def _append(content: bytes, random: Random) -> bytes:
    return content + random.choice((b"\0", b"\xff", random.randbytes(7))) * random.randint(1, 500)


def _prepend(content: bytes, random: Random) -> bytes:
    return random.randbytes(random.randint(1, 16)) + content


def _swap(content: bytes, random: Random) -> bytes:
    one, other = sorted(random.randint(0, len(content)) for _ in range(2))
    return content[one:other] + content[:one] + content[other:]


_MUTATIONS = (
    _flip_bits,
    _flip_in_header,
    _truncate,
    _remove,
    _repeat,
    _overwrite,
    _overwrite_number,
    _append,
    _prepend,
    _swap,
)


def _span(content: bytes, random: Random) -> tuple[int, int]:
    start = random.randint(0, len(content))
    return start, min(len(content) - start, random.choice((1, 2, 4, 16, 256, 4096)))


# Properties --------------------------------------------------------------------------------------


def rejected(error: AffectGapError) -> str:
    """Check an error that a user would see, and return its outcome.

    A lost row (`ConservationError`) is a defect of the project and is raised again.
    """
    if isinstance(error, ConservationError):
        raise error
    require_line(str(error))
    return f"rejected by {type(error).__name__}"


def require_line(text: str, max_length: int = 2000) -> None:
    """Check that a text is one printable line of a length that can be read."""
    assert text.strip(), "an empty message"
    assert printable(text) == text, f"a message holds control characters: {text[:300]!r}"
    assert len(text) <= max_length, f"a message of {len(text)} characters: {text[:300]!r}"


# Running -----------------------------------------------------------------------------------------


def _run_part(
    case: str, seeds: range, cpu_s: float, memory_mb: int
) -> tuple[Counter[str], list[Finding]]:
    """Run cases in child processes, as many as it takes."""
    outcomes, findings = Counter[str](), list[Finding]()
    while seeds and len(findings) < _MAX_FINDINGS:
        answers = list(_answers(case, seeds, cpu_s, memory_mb))
        for seed, outcome, finding in answers:
            if finding:
                findings.append(Finding(seed, finding))
            else:
                outcomes[outcome] += 1
        seeds = seeds[len(answers) :]
    return outcomes, findings


def _answers(
    case: str, seeds: range, cpu_s: float, memory_mb: int
) -> Iterator[tuple[int, str, str]]:
    """Yield seed, outcome and finding of the cases that one child process comes to."""
    reading, writing = os.pipe()
    plan = json.dumps([case, [seeds.start, seeds.stop, seeds.step], cpu_s, memory_mb, writing])
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "hostile.campaign", plan],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            pass_fds=[writing],
            env={**os.environ, "PYTHONPATH": f"{_ROOT}:{_ROOT / 'tests'}", "OMP_NUM_THREADS": "1"},
        )
        os.close(writing)
        answered = 0
        try:
            lines = _lines(reading)
            ready = next(lines, b"")
            for line in lines:
                yield tuple(json.loads(line))
                answered += 1
        finally:
            died = process.poll()
            process.kill()
            process.wait()
            os.close(reading)
        errors.seek(0)
        last = " | ".join(errors.read().decode(errors="replace").strip().splitlines()[-8:])
        if not ready:
            raise AssertionError(f"{case} does not start: {last}")
        if answered < len(seeds) and process.returncode != _FRESH:
            end = "hangs" if died is None and process.returncode == -9 else "ends the process"
            yield seeds[answered], "", f"{end} (exit code {process.returncode}): {last}"


def _lines(pipe: int) -> Iterator[bytes]:
    """Yield lines as they come, until the other side closes or falls silent."""
    rest, patience_s = b"", _START_S
    while select.select([pipe], [], [], patience_s)[0] and (piece := os.read(pipe, 1 << 16)):
        *lines, rest = (rest + piece).split(b"\n")
        patience_s = _SILENT_S
        yield from lines


_FRESH = 77  # exit code of a child that wants another in its place after a time limit


class _TooLong(BaseException):
    """A case took its time; no `except Exception` of the code under test may catch it."""


def _raise_too_long(_signal: int, _frame: object) -> None:
    raise _TooLong


def _work(plan: str) -> None:
    """Run cases in this process, which is the child."""
    case, seeds, cpu_s, memory_mb, pipe = json.loads(plan)
    die_with_parent(os.getppid())
    faulthandler.enable()
    check = _resolved(case)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    limit = _address_space_bytes() + memory_mb * _MIB
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    signal.signal(signal.SIGPROF, _raise_too_long)
    os.write(pipe, b"ready\n")
    for seed in range(*seeds):
        outcome, finding, again = _one(check, seed, cpu_s)
        os.write(pipe, json.dumps([seed, outcome, finding]).encode() + b"\n")
        if again:
            os._exit(_FRESH)


def _one(check: Case, seed: int, cpu_s: float) -> tuple[str, str, bool]:
    """Return outcome, finding, and whether this process should end (a time limit hits anywhere)."""
    try:
        with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
            signal.setitimer(signal.ITIMER_PROF, cpu_s)
            try:
                outcome = check(Random(seed), Path(folder))
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
    except _TooLong as error:
        return "", f"took more than {cpu_s:g} s of the processor{_frames(error)}", True
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is a finding
        text = " ".join(f"{type(error).__name__}: {error}".split())[:400]
        return "", text + _frames(error), False
    if any(word.lower() in outcome.lower() for word in _MEMORY_WORDS):
        return "", f"ran out of memory: {outcome}", False
    return outcome, "", False


def _frames(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    return "".join(f" < {Path(f.filename).name}:{f.lineno} {f.name}" for f in reversed(frames))


def _resolved(case: str) -> Case:
    module, _, function = case.partition(":")
    found: Case = getattr(importlib.import_module(module), function)
    return found


def _address_space_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    return pages * resource.getpagesize()


def _repeat_case(case: str, seed: int) -> None:
    """Run one case without limits, for a person who looks into a finding."""
    with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
        print(_resolved(case)(Random(seed), Path(folder)))


if __name__ == "__main__":
    if len(sys.argv) == 2:
        _work(sys.argv[1])
    else:
        _repeat_case(sys.argv[1], int(sys.argv[2]))
