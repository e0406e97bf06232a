import os
import signal
import subprocess
import sys
import time

import psutil

from tasks.core.parallel.execution import map_in_order, process_pool


def squares(numbers):
    return [number * number for number in numbers]


def test_results_keep_the_order_for_any_number_of_workers_and_chunk():
    expected = [number * number for number in range(23)]
    for workers, chunk_size in ((1, 4), (2, 5)):
        with process_pool(workers) as pool:
            assert list(map_in_order(squares, range(23), pool, chunk_size, workers)) == expected


def test_items_are_taken_lazily():
    taken = []

    def items():
        for number in range(1000):
            taken.append(number)
            yield number

    with process_pool(1) as pool:
        results = map_in_order(squares, items(), pool, chunk_size=2, workers=1)
        assert next(results) == 0
        assert len(taken) <= 10
        results.close()


def test_workers_die_with_a_parent_that_is_killed(tmp_path):
    code = (
        "import time\n"
        "from concurrent.futures import wait\n"
        "from tasks.core.parallel.execution import process_pool\n"
        "if __name__ == '__main__':\n"
        "    with process_pool(2) as pool:\n"
        "        wait([pool.submit(time.sleep, 0) for _ in range(4)])\n"
        "        print('ready', flush=True)\n"
        "        pool.submit(time.sleep, 600).result()\n"
    )
    script = tmp_path / "parent.py"
    script.write_text(code)
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    parent = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == "ready\n"
    workers = psutil.Process(parent.pid).children(recursive=True)
    assert workers
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(workers, timeout=20)
    alive = [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]
    # multiprocessing's resource tracker ends by itself a moment later
    deadline = time.monotonic() + 20
    while alive and time.monotonic() < deadline:
        alive = [p for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
        time.sleep(0.1)
    assert not alive


def test_a_worker_that_comes_up_after_its_parent_died_ends_at_once():
    code = (
        "from tasks.core.parallel.process import die_with_parent;"
        "die_with_parent(1 << 30); print('lives')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == ""
    assert done.returncode == -signal.SIGKILL
