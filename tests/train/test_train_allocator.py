"""That freed memory is taken again without the kernel's help."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

AGAIN_AND_AGAIN = """
import resource, sys
import torch
from tasks.core.training.trainer import retain_freed_memory

if sys.argv[1] == "keep" and not retain_freed_memory():
    sys.exit("no mallopt here")

def faults():
    for _ in range(10):
        torch.ones(2**26, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

before = faults()  # until there is room for all of it
print(faults() - before)
"""


def faults(how: str) -> int:
    command = [sys.executable, "-c", AGAIN_AND_AGAIN, how]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if "no mallopt here" in done.stderr:
        pytest.skip("this machine's C library is not glibc")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_what_is_freed_is_not_fetched_from_the_kernel_again():
    asked = faults("leave")
    if asked < 2**26 // 2**12:
        pytest.skip("this kernel hands out huge pages: few faults either way")
    assert faults("keep") < asked / 10
