"""Which names the processes of a test look up: `watch` them, then ask for `foreign_names`."""

import ipaddress
from pathlib import Path

_HOOK = Path(__file__).parent / "lookup_hook"


def watch(environment: dict[str, str], file: Path) -> dict[str, str]:
    """An environment in which every Python process writes its look-ups to a file."""
    path = f"{_HOOK}:{environment['PYTHONPATH']}"
    removed = ("DO_NOT_TRACK", "DVC_NO_ANALYTICS", "MLFLOW_DISABLE_TELEMETRY")
    kept = {key: value for key, value in environment.items() if key not in removed}
    return {**kept, "PYTHONPATH": path, "LOOKUPS_FILE": str(file)}


def foreign_names(file: Path) -> set[str]:
    """The lines of names beyond this machine."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return {line for line in lines if not _is_here(line.partition("\t")[0])}


def _is_here(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name in ("localhost", "None")
