"""The recorded trial in its full form: continuous training from adults to children, judged.

Adults alone, then three batches of children: a good one, one with broken files, one in which anger
and disgust were mixed up. Says what each pass took and decided, what the refusal named, how long
going back took, and what the served model answered. With `--london` the same with real people: 20
subjects of the London set come later as a batch of their own; that preset's model must be at hand
(docs/models.md says where it is looked for).

    .venv/bin/python benchmarks/trial.py [--people 4] [--london FOLDER] [--keep DIR]
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import trial_steps as steps
from batches import london_parts, mark_ready
from pass_world import commit_all, run
from whole_way import fresh_clone

from tasks.core.paths import Paths

HELD_OUT = 20


def say(what: str, text: str, seconds: float | None = None) -> None:
    """Print a step with the lines that matter."""
    took = "" if seconds is None else f" ({seconds:.0f} s)"
    print(f"== {what}{took}", flush=True)
    words = ("accepted", "quarantined", "drift of", "version", "fell", "rose", "training:", "%")
    for line in text.splitlines():
        if any(word in line for word in words):
            print(f"   {line.strip()[:240]}", flush=True)


def step(paths: Paths, what: str, *command: str) -> None:
    """Run a command and print its outcome."""
    began = time.monotonic()
    output = run(paths, *command)
    say(what, output, time.monotonic() - began)
    print(f"   in use: version {steps.version_in_use(paths)}", flush=True)


def drawn(folder: Path, people: int) -> Paths:
    """Run the trial on the drawn cohort, with `people` times the subjects of the test."""
    short = steps.SHORT
    size = steps.Size(
        adults=short.adults * people,
        good=short.good * people,
        mislabelled=short.mislabelled * people,
        takes=short.takes,
        split_seed=short.split_seed,
    )
    if size.good > 99 or size.mislabelled > 199:
        sys.exit("--people: at most 4, since batches have blocks of subject numbers")
    paths = steps.trial_project(folder / "drawn", size)
    step(paths, "adults alone", "retrain", "--quiet")
    steps.good_batch(paths, size)
    steps.broken_batch(paths, size)
    step(paths, "a good batch and one with broken files", "retrain", "--quiet")
    steps.mislabelled_batch(paths, size)
    step(paths, "a batch with anger and disgust mixed up", "retrain", "--quiet")
    tell_decision(paths, 3)
    return paths


def london(source: Path, folder: Path) -> Paths:
    """Run it on the London set: most people first, `HELD_OUT` others as a later batch."""
    paths = Paths(fresh_clone(folder / "london", "london"))
    commit_all(paths.root)
    first, later = folder / "london-first", paths.inbox / "london-later"
    counts = london_parts(source, first, later, HELD_OUT)
    print(f"London: {counts[0]} pictures first, {counts[1]} of {HELD_OUT} people later")
    run(paths, "intake", str(first), "--dataset", "london")
    step(paths, "the first people", "retrain", "--quiet")
    mark_ready(later, "london")
    step(paths, f"{HELD_OUT} people more", "retrain", "--quiet", "--now")
    tell_decision(paths, 2)
    return paths


def tell_decision(paths: Paths, version: int) -> None:
    """Print every rule of a decision, where there is one."""
    path = paths.decision(version) / "decision.json"
    if not path.is_file():
        print(f"   no decision about a version {version}: the model was not another one")
        return
    decision = json.loads(path.read_text(encoding="utf-8"))
    print(f"   version {version}: {decision['outcome']}")
    for row in decision["rules"]:
        figures = [row[name] for name in ("champion", "challenger", "ci_low", "ci_high", "margin")]
        cells = " ".join("   –  " if figure is None else f"{figure:6.3f}" for figure in figures)
        name = f"{row['rule']}, {row['part']}, {row['group']}"
        print(f"   {row['outcome']:<10} {name:<46} {cells}  n {row['n']}, {row['subjects']} people")


def afterwards(paths: Paths, jpeg: bytes) -> None:
    """Serve, ask, go back, and look over everything."""
    began = time.monotonic()
    with steps.served(paths) as ask:
        up, asked = time.monotonic() - began, time.monotonic()
        faces = ask(jpeg)
        took = time.monotonic() - asked
    labels = [f"{face['emotion']} ({face['note'] or face['model_version']})" for face in faces]
    print(f"== served: up after {up:.0f} s, answered in {took:.2f} s: {', '.join(labels)}")
    if steps.version_in_use(paths).startswith("1 "):
        print("== version 1 is still in use: there is nothing to roll back to")
    else:
        step(paths, "rolled back", "rollback", "--why", "the trial", "--by", "trial")
    say("models", run(paths, "models"))
    print(f"== doctor: {run(paths, 'doctor').strip()}")


def main() -> None:
    """Run the trial."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=2, help="times the people of the short test")
    parser.add_argument("--london", type=Path, help="folder of the London set")
    parser.add_argument("--keep", type=Path, help="keep the projects here")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="affectgap-trial-") as place:
        folder = chosen.keep or Path(place)
        if chosen.london:
            image = sorted(chosen.london.glob("smiling_front/[0-9]*.jpg"))[0].read_bytes()
            afterwards(london(chosen.london, folder), image)
        else:
            paths = drawn(folder, chosen.people)
            afterwards(paths, steps.image_of_a_child())
            run(paths, "withdraw", "site-3", "--why", "labels mixed up")
            print("== site-3 withdrawn")


if __name__ == "__main__":
    main()
