"""What is known to be wrong with the code that registered versions are served with.

Each version holds the code of its day. The tag `serving_code` of a version is the revision of that
code; versions without the tag are of revision 1.
"""

from collections.abc import Mapping

TAG = "serving_code"
REVISION = 2  # to be raised, with a line in DEFECTS, when served code turns out to be wrong
DEFECTS = {  # of the code up to a revision
    1: "answers wrongly, or ends, when several clients ask at once; reads any file by its path",
}
_FIRST = "1"


def defects(tags: Mapping[str, str]) -> list[str]:
    """List what is known to be wrong with the code that a version is served with."""
    revision = int(tags.get(TAG, _FIRST))
    return [text for last, text in DEFECTS.items() if revision <= last]
