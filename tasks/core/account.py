"""An account without a name or a home, as in a container that was started with a bare user id.

`getpass.getuser` (DVC asks it), and whatever looks for `~`, fail for such an account.
"""

import os
import pwd
from pathlib import Path


def name_account(root: Path) -> None:
    """Set `USER` and `HOME` for this process and what it starts, where nothing else says them.

    Parameters
    ----------
    root
        The project's folder; a home that is missing becomes `.cache/home` below it.
    """
    try:
        account = pwd.getpwuid(os.geteuid())
        name, home = account.pw_name, account.pw_dir
    except KeyError:
        name, home = f"uid-{os.geteuid()}", ""
    if not any(os.environ.get(key) for key in ("LOGNAME", "USER", "LNAME", "USERNAME")):
        os.environ["USER"] = name
    if not os.environ.get("HOME"):
        os.environ["HOME"] = home or str(root / ".cache/home")
