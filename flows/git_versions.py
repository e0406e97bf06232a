"""What a pass leaves in git: a commit of what belongs together, and a tag at a promotion.

The commit is made with git's plumbing: what else the user has staged or changed stays as it is, no
hook runs, and a branch that is not checked out is reached as well. Git's state never stops a pass:
where nothing can be committed, a line says why.
"""

import os
import re
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from flows.policy import Params
from tasks.core.paths import Paths
from tasks.core.provenance import repository_fault

KEPT = ("dvc.lock", ":(glob)data/raw/*.dvc", "params.yaml", "registry")
_CODE = ("dvc.yaml", "flows", "tasks", "pyproject.toml", "uv.lock")
_BUSY = {  # in git's folder while something is half done
    "rebase-merge": "a rebase",
    "rebase-apply": "a rebase",
    "MERGE_HEAD": "a merge",
    "CHERRY_PICK_HEAD": "a cherry-pick",
    "REVERT_HEAD": "a revert",
}
_INDEX_WAIT_S = 10
_WEIGHTS = re.compile(r"^Weights (\S+)$", re.MULTILINE)  # in the message of a version


class _GitError(Exception):
    """Git refused; the text says what and why."""


@dataclass(frozen=True)
class _Place:
    """Where a commit goes: the branch, its tip ("" for a new one), HEAD, and whether it is HEAD."""

    branch: str
    tip: str
    head: str
    checked_out: bool


def keep(paths: Paths, params: Params, message: str) -> list[str]:
    """Commit dvc.lock, the .dvc files, params.yaml and registry/, and nothing else.

    Parameters
    ----------
    paths
        The project's paths.
    params
        Whether at all (`commit`), in whose name (`author`) and to which branch (`branch`).
    message
        The commit's message.

    Returns
    -------
    list of str
        What was done, or why nothing could be; empty where there was nothing to commit.
    """
    if not params.commit:
        return []
    try:
        place = _place(paths.root, params.branch)
        tree = _tree(paths, place)
        commit = _commit(paths.root, place, tree, params.author, message)
    except _GitError as error:
        return [f"not committed to git: {error}"]
    if not commit:
        return []
    lines = [f"committed to git: {commit[:10]} on {place.branch}"]
    if changed := _git(paths.root, "status", "--porcelain", "--", *_CODE).splitlines():
        some = ", ".join(line[3:] for line in changed[:3])
        lines.append(f"code that made this is in no commit: {some}{' …' * (len(changed) > 3)}")
    return lines


def tag_name(version: int) -> str:
    """Return the tag of a promoted version of the model."""
    return f"affectgap-{version}"


def tag_version(paths: Paths, params: Params, version: int, message: str) -> list[str]:
    """Tag the commit of the pass that made a version which is promoted; a tag that is there stays.

    A version that waited for an approval, while later passes went on, is of an earlier commit.
    Without one it is the last commit of `keep`, where that is of this version.

    Parameters
    ----------
    paths, params
        See `keep`.
    version
        The model's number in the registry.
    message
        The tag's message.

    Returns
    -------
    list of str
        What was done, or why nothing could be.
    """
    if not params.commit:
        return []
    name = tag_name(version)
    try:
        place = _place(paths.root, params.branch)
        if _succeeds(paths.root, "show-ref", "--verify", "--quiet", f"refs/tags/{name}"):
            _assert_same_weights(paths.root, name, message)
            return [f"tag in git: {name} (there already)"]
        commit = _made_in(paths.root, place, version, message)
        if not commit:
            commit = place.tip
            _assert_same_model(paths, message)
        if not commit or (
            commit == place.tip and _tree(paths, place) != _tree_of(paths.root, place.tip)
        ):
            raise _GitError(f"what is on disk is not what the branch {place.branch} holds")
        tag = ("tag", "--annotate", "--no-sign", "--file=-", name, commit)
        _git(paths.root, *tag, given=message, more=_identity(paths.root, params.author))
    except _GitError as error:
        return [f"not tagged in git: {error}"]
    return [f"tag in git: {name} (`git checkout {name} && dvc checkout` brings it back)"]


def _made_in(root: Path, place: _Place, version: int, message: str) -> str:
    """Return the first commit of the branch about a version and its weights; "" for none."""
    weights = _WEIGHTS.findall(message)
    if not place.tip or not weights:
        return ""
    about = ("--fixed-strings", "--all-match", f"--grep=affectgap: version {version} ")
    about += (f"--grep=Weights {weights[-1]}",)
    return _git(root, "log", "--reverse", "--format=%H", *about, place.tip).partition("\n")[0]


def _assert_same_model(paths: Paths, message: str) -> None:
    """Raise where the last commit is of another model than the one to tag."""
    from tasks.core.models.checkpoint import load_spec

    weights, folder = _WEIGHTS.findall(message), paths.model("finetuned")
    if weights and folder.is_dir() and (there := load_spec(folder).version) != weights[-1]:
        raise _GitError(f"models/finetuned holds other weights now ({there})")


def _assert_same_weights(root: Path, name: str, message: str) -> None:
    """Raise where a tag is of other weights: a new store counts its versions from 1 again."""
    there = _git(root, "for-each-ref", "--format=%(contents)", f"refs/tags/{name}")
    if _WEIGHTS.findall(there) != _WEIGHTS.findall(message):
        raise _GitError(f"the tag {name} is there already, and is of other weights; rename it")


def _place(root: Path, wanted: str | None) -> _Place:
    """Find out where to commit; raises where that is not possible now."""
    if fault := repository_fault(root):
        raise _GitError(f"{root}: {fault}")
    head = _git(root, "rev-parse", "--verify", "--quiet", "HEAD^{commit}", may_fail=True)
    if not head:
        raise _GitError("the repository has no commit yet; make the first one by hand")
    current = _git(root, "symbolic-ref", "--quiet", "--short", "HEAD", may_fail=True)
    branch = wanted or current
    checked_out = branch == current
    if checked_out or not current:
        for name, what in _BUSY.items():
            if (root / _git(root, "rev-parse", "--git-path", name)).exists():
                raise _GitError(f"{what} is going on")
    if not branch:
        raise _GitError("HEAD is detached, and retrain.branch names no branch")
    if not _succeeds(root, "check-ref-format", f"refs/heads/{branch}"):
        raise _GitError(f"retrain.branch: git takes no such name: {branch}")
    reference = f"refs/heads/{branch}"
    elsewhere = _git(root, "for-each-ref", "--format=%(worktreepath)", reference)
    if elsewhere and not checked_out:
        raise _GitError(f"the branch {branch} is checked out in {elsewhere}")
    tip = _git(root, "rev-parse", "--verify", "--quiet", reference, may_fail=True)
    return _Place(branch, tip, head, checked_out)


def _tree(paths: Paths, place: _Place) -> str:
    """Write the tree: HEAD's files, for they made the rest, and what is kept as it is on disk."""
    scratch = paths.root / _git(paths.root, "rev-parse", "--git-path", f"affectgap.{os.getpid()}")
    try:
        more = {"GIT_INDEX_FILE": str(scratch.resolve())}
        _git(paths.root, "read-tree", place.head, more=more)
        listing = ("ls-files", "-co", "--exclude-standard", "-z", "--", *KEPT)
        listed = _git(paths.root, *listing, more=more).split("\0")
        names = [name for name in listed if name and not Path(name).name.startswith(".")]
        _stage(paths.root, names, more)
        tree = _git(paths.root, "write-tree", more=more)
    finally:
        scratch.unlink(missing_ok=True)
    if place.checked_out:
        # Before the branch moves: killed in between, these files are only staged.
        _stage(paths.root, names, {})
    return tree


def _tree_of(root: Path, commit: str) -> str:
    return _git(root, "rev-parse", f"{commit}^{{tree}}")


def _stage(root: Path, names: Iterable[str], more: Mapping[str, str]) -> None:
    """Put files into an index, waiting a little where another git holds it."""
    deadline = time.monotonic() + _INDEX_WAIT_S
    given = "".join(f"{name}\0" for name in names)
    while True:
        try:
            _git(root, "update-index", "--add", "--remove", "-z", "--stdin", given=given, more=more)
            return
        except _GitError as error:
            if "index.lock" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _commit(root: Path, place: _Place, tree: str, author: str, message: str) -> str:
    """Commit a tree to the branch; "" where its tip holds the same already."""
    parents = [place.tip or place.head]
    if place.tip and not _succeeds(root, "merge-base", "--is-ancestor", place.head, place.tip):
        parents.append(place.head)  # the code went on: the branch follows it
    if place.tip and tree == _tree_of(root, place.tip):
        return ""
    arguments = [part for parent in parents for part in ("-p", parent)]
    identity = _identity(root, author)
    commit = _git(root, "commit-tree", tree, *arguments, given=message, more=identity)
    subject = message.partition("\n")[0]
    reference = f"refs/heads/{place.branch}"
    # Git compares with the old tip: a commit that someone else made meanwhile is not lost.
    old = place.tip or "0" * len(commit)
    _git(root, "update-ref", "-m", f"affectgap: {subject}", reference, commit, old, more=identity)
    return commit


def _identity(root: Path, author: str) -> dict[str, str]:
    """Return the author of params, who is the committer too where git knows none."""
    found = re.fullmatch(r"(.*) <(.*)>", author)
    assert found  # the section's pattern
    named = {"GIT_AUTHOR_NAME": found[1], "GIT_AUTHOR_EMAIL": found[2]}
    known = os.environ.get("GIT_COMMITTER_EMAIL") or os.environ.get("EMAIL")
    if not known and not _git(root, "config", "user.email", may_fail=True):
        named |= {"GIT_COMMITTER_NAME": found[1], "GIT_COMMITTER_EMAIL": found[2]}
    return named


def _succeeds(root: Path, *arguments: str) -> bool:
    try:
        _git(root, *arguments)
    except _GitError:
        return False
    return True


def _git(
    root: Path,
    *arguments: str,
    given: str = "",
    more: Mapping[str, str] | None = None,
    may_fail: bool = False,
) -> str:
    """Run git; raises with its last line where it fails, unless it may."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            input=given,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            check=False,
            env={**os.environ, **(more or {})},
        )
    except OSError as error:
        raise _GitError(f"git cannot be run ({error.strerror})") from None
    if done.returncode and not may_fail:
        said = done.stderr.strip().splitlines() or [f"git {arguments[0]} failed"]
        raise _GitError(re.sub(r"^(fatal|error): ", "", said[0]))
    return done.stdout.rstrip("\n") if not done.returncode else ""
