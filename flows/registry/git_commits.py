"""Git commits and tags of a pass: one commit of its results, and a tag per promotion.

Commits use git's plumbing: other staged or changed files stay as they are, no hook runs, and a
branch that is not checked out can be written. Git's state never stops a pass: if nothing can be
committed, a line gives the reason.
"""

import os
import re
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from flows.retraining.trigger_policy import Params
from tasks.core.paths import Paths
from tasks.core.tracking.versions import repository_fault

COMMITTED = ("dvc.lock", ":(glob)data/raw/*.dvc", "params.yaml", "registry")
_CODE = ("dvc.yaml", "flows", "tasks", "pyproject.toml", "uv.lock")
_UNFINISHED = {  # files in git's folder during an unfinished operation
    "rebase-merge": "a rebase",
    "rebase-apply": "a rebase",
    "MERGE_HEAD": "a merge",
    "CHERRY_PICK_HEAD": "a cherry-pick",
    "REVERT_HEAD": "a revert",
}
_INDEX_WAIT_S = 10
_WEIGHTS = re.compile(r"^Weights (\S+)$", re.MULTILINE)  # in the commit message of a version


class _GitError(Exception):
    """Git failed; the message gives the command's reason."""


@dataclass(frozen=True)
class _Place:
    """Where a commit goes.

    `tip` is "" for a new branch; `head` is the commit of HEAD.
    """

    branch: str
    tip: str
    head: str
    checked_out: bool


def commit_results(paths: Paths, params: Params, message: str) -> list[str]:
    """Commit dvc.lock, the .dvc files, params.yaml and registry/, and nothing else.

    Returns lines on what was done, or why nothing could be; empty if there was nothing to commit or
    `params.commit` is off.
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
        examples = ", ".join(line[3:] for line in changed[:3])
        lines.append(f"code that made this is in no commit: {examples}{' …' * (len(changed) > 3)}")
    return lines


def tag_name(version: int) -> str:
    """Return the tag of a promoted version of the model."""
    return f"affectgap-{version}"


def tag_version(paths: Paths, params: Params, version: int, message: str) -> list[str]:
    """Tag the commit of the pass that made a promoted version; an existing tag stays.

    A version that waited for approval while later passes went on belongs to an earlier commit.
    Without such a commit the branch's tip is tagged, if it holds this version. Returns lines on
    what was done, or why nothing could be.
    """
    if not params.commit:
        return []
    name = tag_name(version)
    try:
        place = _place(paths.root, params.branch)
        if _succeeds(paths.root, "show-ref", "--verify", "--quiet", f"refs/tags/{name}"):
            _assert_same_weights(paths.root, name, message)
            return [f"tag in git: {name} (exists already)"]
        commit = _made_in(paths.root, place, version, message)
        if not commit:
            commit = place.tip
            _assert_same_model(paths, message)
        is_tip = commit == place.tip
        if not commit or (is_tip and _tree(paths, place) != _tree_of(paths.root, commit)):
            raise _GitError(f"what is on disk is not what the branch {place.branch} holds")
        tag = ("tag", "--annotate", "--no-sign", "--file=-", name, commit)
        _git(paths.root, *tag, stdin=message, env=_identity(paths.root, params.author))
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
    """Raise if the last commit holds another model than the one to tag."""
    from tasks.core.models.checkpoint import load_spec

    weights, folder = _WEIGHTS.findall(message), paths.model("finetuned")
    if weights and folder.is_dir() and (current := load_spec(folder).version) != weights[-1]:
        raise _GitError(f"models/finetuned holds other weights now ({current})")


def _assert_same_weights(root: Path, name: str, message: str) -> None:
    """Raise if a tag is for other weights: a new store counts its versions from 1 again."""
    content = _git(root, "for-each-ref", "--format=%(contents)", f"refs/tags/{name}")
    if _WEIGHTS.findall(content) != _WEIGHTS.findall(message):
        raise _GitError(f"the tag {name} is there already, and is of other weights; rename it")


def _place(root: Path, wanted: str | None) -> _Place:
    """Return where to commit; raises if that is not possible now."""
    if fault := repository_fault(root):
        raise _GitError(f"{root}: {fault}")
    head = _git(root, "rev-parse", "--verify", "--quiet", "HEAD^{commit}", may_fail=True)
    if not head:
        raise _GitError("the repository has no commit yet; make the first one by hand")
    current = _git(root, "symbolic-ref", "--quiet", "--short", "HEAD", may_fail=True)
    branch = wanted or current
    checked_out = branch == current
    if checked_out or not current:
        for name, what in _UNFINISHED.items():
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
    """Write a tree of HEAD's files, which produced the results, and the results on disk."""
    index = paths.root / _git(paths.root, "rev-parse", "--git-path", f"affectgap.{os.getpid()}")
    try:
        env = {"GIT_INDEX_FILE": str(index.resolve())}
        _git(paths.root, "read-tree", place.head, env=env)
        command = ("ls-files", "-co", "--exclude-standard", "-z", "--", *COMMITTED)
        files = _git(paths.root, *command, env=env).split("\0")
        names = [name for name in files if name and not Path(name).name.startswith(".")]
        _stage(paths.root, names, env)
        tree = _git(paths.root, "write-tree", env=env)
    finally:
        index.unlink(missing_ok=True)
    if place.checked_out:
        # Before the branch moves: after a kill in between, these files are merely staged.
        _stage(paths.root, names, {})
    return tree


def _tree_of(root: Path, commit: str) -> str:
    return _git(root, "rev-parse", f"{commit}^{{tree}}")


def _stage(root: Path, names: Iterable[str], env: Mapping[str, str]) -> None:
    """Add files to an index, retrying for a while if another git holds its lock."""
    deadline = time.monotonic() + _INDEX_WAIT_S
    stdin = "".join(f"{name}\0" for name in names)
    while True:
        try:
            command = ("update-index", "--add", "--remove", "-z", "--stdin")
            _git(root, *command, stdin=stdin, env=env)
            return
        except _GitError as error:
            if "index.lock" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _commit(root: Path, place: _Place, tree: str, author: str, message: str) -> str:
    """Commit a tree to the branch; return "" if its tip already has that tree."""
    parents = [place.tip or place.head]
    if place.tip and not _succeeds(root, "merge-base", "--is-ancestor", place.head, place.tip):
        parents.append(place.head)  # the code has new commits: merge them into the branch
    if place.tip and tree == _tree_of(root, place.tip):
        return ""
    arguments = [part for parent in parents for part in ("-p", parent)]
    identity = _identity(root, author)
    commit = _git(root, "commit-tree", tree, *arguments, stdin=message, env=identity)
    subject = message.partition("\n")[0]
    reference = f"refs/heads/{place.branch}"
    # Git compares with the old tip, so a commit made by someone else meanwhile is not lost.
    old = place.tip or "0" * len(commit)
    command = ("update-ref", "-m", f"affectgap: {subject}", reference, commit, old)
    _git(root, *command, env=identity)
    return commit


def _identity(root: Path, author: str) -> dict[str, str]:
    """Return the author of params, who is also the committer if git has none configured."""
    match = re.fullmatch(r"(.*) <(.*)>", author)
    assert match  # guaranteed by the pattern of the params section
    identity = {"GIT_AUTHOR_NAME": match[1], "GIT_AUTHOR_EMAIL": match[2]}
    committer = os.environ.get("GIT_COMMITTER_EMAIL") or os.environ.get("EMAIL")
    if not committer and not _git(root, "config", "user.email", may_fail=True):
        identity |= {"GIT_COMMITTER_NAME": match[1], "GIT_COMMITTER_EMAIL": match[2]}
    return identity


def _succeeds(root: Path, *arguments: str) -> bool:
    try:
        _git(root, *arguments)
    except _GitError:
        return False
    return True


def _git(
    root: Path,
    *arguments: str,
    stdin: str = "",
    env: Mapping[str, str] | None = None,
    may_fail: bool = False,
) -> str:
    """Run git; raises with the first line of its error unless `may_fail`."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            check=False,
            env={**os.environ, **(env or {})},
        )
    except OSError as error:
        raise _GitError(f"git cannot be run ({error.strerror})") from None
    if done.returncode and not may_fail:
        message = done.stderr.strip().splitlines() or [f"git {arguments[0]} failed"]
        raise _GitError(re.sub(r"^(fatal|error): ", "", message[0]))
    return done.stdout.rstrip("\n") if not done.returncode else ""
