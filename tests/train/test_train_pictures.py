import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tasks.core.errors import DataError
from tasks.core.imaging.shards import read_crops
from tasks.core.models import predictor
from tasks.core.models.predictor import prepare
from tasks.core.models.spec import ModelSpec
from tasks.core.tables import read_table, write_table
from tasks.core.training.data import pixel_cache
from tasks.core.training.data.dataset import load_images

LABELS = ("anger", "happiness", "neutral")
SPEC = ModelSpec(
    architecture="lenet5",
    labels=LABELS,
    input_size_px=32,
    color="rgb",
    mean=(0.5,) * 3,
    std=(0.5,) * 3,
    version="",
    source="",
)
GRAY = SPEC.model_copy(update={"color": "gray", "mean": (0.5,), "std": (0.5,)})


@pytest.fixture
def decoded(monkeypatch):
    """How many crops were decoded, as it goes."""
    counted = []
    real = predictor.prepare
    monkeypatch.setattr(
        pixel_cache,
        "prepare",
        lambda crops, spec: (counted.append(len(crops)), real(crops, spec))[1],
    )
    return counted


def files(paths):
    return sorted(
        str(f.relative_to(paths.at("work/pixels"))) for f in paths.at("work").rglob("*.npy")
    )


@pytest.mark.parametrize("spec", [SPEC, GRAY], ids=["rgb", "gray"])
def test_a_batch_holds_the_crops_at_the_networks_size(cohort, spec):
    table = read_table(cohort.split)
    rows = table[table["split"] == "validation"].iloc[::-1]
    images = load_images(rows, cohort, spec)
    wanted = prepare(np.stack(list(read_crops(rows, cohort.crop_shards))), spec)
    assert len(images) == len(rows) == 12
    assert images.n_channels == wanted.shape[3]
    for chosen in ([3], [0, 1, 2], [5, 5, 4], [11, 0, 1, 7], range(12), []):
        index = np.array(chosen, dtype=np.int64)
        batch = images.batch(index)
        assert batch.dtype == np.uint8
        assert np.array_equal(batch, wanted[index])
    assert [LABELS[target] for target in images.targets] == list(rows["emotion"])
    assert np.concatenate(list(images.in_parts(5))).tolist() == list(range(12))


def test_crops_are_decoded_once_for_all_stages_and_sizes_lie_side_by_side(cohort, decoded):
    table = read_table(cohort.split)
    for split in ("train", "validation"):
        load_images(table[table["split"] == split], cohort, SPEC)
    write_table(table.assign(split="train"), cohort.split)  # another split of the same crops
    load_images(table, cohort, SPEC)
    assert sum(decoded) == len(table)
    load_images(table, cohort, GRAY)
    assert sum(decoded) == 2 * len(table)
    assert [Path(file).name for file in files(cohort)] == ["32-gray.npy", "32-rgb.npy"]


def test_other_crops_take_the_place_of_the_old_ones(cohort, decoded):
    table = read_table(cohort.split)
    before = load_images(table, cohort, SPEC)
    first = before.batch(np.arange(4))
    shard = cohort.crop_shards / table["shard"].iloc[0]
    # The same names, places and sizes, but the first two pictures changed their places.
    one, two = table.iloc[0], table.iloc[1]
    table.loc[[0, 1], ["offset_bytes", "size_bytes"]] = [
        [two["offset_bytes"], two["size_bytes"]],
        [one["offset_bytes"], one["size_bytes"]],
    ]
    write_table(table, cohort.split)
    swapped = load_images(table, cohort, SPEC)
    assert np.array_equal(swapped.batch(np.array([1, 0])), first[:2])
    assert before.fingerprint() != swapped.fingerprint()
    os.utime(shard, ns=(0, 0))
    assert load_images(table, cohort, SPEC).content == swapped.content  # touched, not changed
    other = table.assign(image_id=table["image_id"] + "x")
    write_table(other, cohort.split)
    load_images(other, cohort, SPEC)
    assert len(files(cohort)) == 1  # one digest's alone
    assert sum(decoded) == 3 * len(table)
    assert np.array_equal(before.batch(np.arange(4)), first)  # who has it open reads on


def test_a_changed_shard_is_noticed_whatever_its_size(cohort):
    table = read_table(cohort.split)
    before = load_images(table, cohort, SPEC)
    shard = cohort.crop_shards / table["shard"].iloc[0]
    content = bytearray(shard.read_bytes())
    content[257] ^= 1  # in a header: the pixels are the same, and yet it is another file
    shard.write_bytes(bytes(content))
    assert load_images(table, cohort, SPEC).content != before.content


def test_fingerprint_tells_rows_targets_groups_and_cells_apart(cohort):
    table = read_table(cohort.split)
    images = load_images(table, cohort, SPEC)
    others = [
        load_images(table.iloc[::-1], cohort, SPEC),
        load_images(table, cohort, GRAY),
        replace(images, targets=images.targets[::-1].copy()),
        replace(images, groups=np.zeros_like(images.groups)),
        replace(images, cells=images.cells + 1),
    ]
    prints = {image.fingerprint() for image in [images, *others]}
    assert len(prints) == 6
    assert load_images(table, cohort, SPEC).fingerprint() == images.fingerprint()


def test_a_build_that_breaks_off_leaves_nothing_that_is_read(cohort, monkeypatch):
    table = read_table(cohort.split)
    real = predictor.prepare
    monkeypatch.setattr(pixel_cache, "_CROPS_PER_TASK", 8)
    calls = []

    def fail(crops, spec):
        calls.append(1)
        if len(calls) == 3:
            raise OSError("No space left on device")
        return real(crops, spec)

    monkeypatch.setattr(pixel_cache, "prepare", fail)
    with pytest.raises(OSError, match="No space"):
        load_images(table, cohort, SPEC)
    assert files(cohort) == []
    monkeypatch.setattr(pixel_cache, "prepare", real)
    half = cohort.at("work/pixels/0123")
    half.mkdir()
    (half / "32-rgb.npy").write_bytes(b"another digest's")
    images = load_images(table, cohort, SPEC)
    (cohort.at("work/pixels") / images.content).with_name(".32-gray.1.npy").write_bytes(b"half")
    load_images(table, cohort, GRAY)
    assert len(list(cohort.at("work/pixels").rglob("*.npy"))) == 2


def test_a_full_disk_is_told_before_anything_is_written(cohort, monkeypatch):
    usage = shutil.disk_usage(cohort.root)._replace(free=1000)
    monkeypatch.setattr(pixel_cache.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DataError, match=r"work/pixels: 60 crops at 32 px need .* GB") as error:
        load_images(read_table(cohort.split), cohort, SPEC)
    assert "\n" not in str(error.value)


def test_processes_that_start_together_build_it_once(cohort):
    code = (
        "import sys; from pathlib import Path; import numpy as np\n"
        "from tasks.core.models.spec import ModelSpec; from tasks.core.paths import Paths\n"
        "from tasks.core.tables import read_table\n"
        "from tasks.core.training.data import pixel_cache\n"
        "from tasks.core.training.data.dataset import load_images\n"
        "paths, spec = Paths(Path(sys.argv[1])), ModelSpec.model_validate_json(sys.argv[2])\n"
        "real, counted = pixel_cache._build, []\n"
        "pixel_cache._build = lambda *a: (counted.append(1), real(*a))\n"
        "pictures = load_images(read_table(paths.split), paths, spec)\n"
        "print(len(counted), int(pictures.batch(np.arange(60)).sum()))"
    )
    command = [sys.executable, "-c", code, str(cohort.root), SPEC.model_dump_json()]
    root = Path(__file__).parents[2]
    started = [subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) for _ in "ab"]
    said = [process.communicate(timeout=120)[0].split() for process in started]
    assert sorted(built for built, _ in said) == ["0", "1"]
    assert said[0][1] == said[1][1]
