"""SQLAlchemy addresses of SQLite files, whatever the folder is called."""

import re
from pathlib import Path

URI_FORM = "?uri=true"  # how an address ends whose path is escaped
_PLAIN_PATH = re.compile(r"[^?%#]*")


def sqlite_url(file: Path, driver: str = "") -> str:
    """Return the address of a database file.

    A `?` in its path would end it there, and the database would be made beside the project. A path
    with such characters is given as a file URI, whose escapes SQLite itself resolves.

    Parameters
    ----------
    file
        An absolute path.
    driver
        Such as `aiosqlite`; "": the default one.
    """
    scheme = f"sqlite+{driver}" if driver else "sqlite"
    if _PLAIN_PATH.fullmatch(str(file)):
        return f"{scheme}:///{file}"
    # With the driver's name MLflow takes the path for what it is, and makes no folder `file:`.
    return f"{scheme if driver else 'sqlite+pysqlite'}:///{file.as_uri()}{URI_FORM}"
