import tarfile

import numpy as np
import pandas as pd

from tasks.core.imaging.shards import encode_png, read_crops, write_shards


def images(count):
    rng = np.random.default_rng(0)
    return rng.integers(0, 255, (count, 8, 6, 3), dtype=np.uint8)


def written(folder, crops, images_per_shard):
    folder.mkdir()
    members = ((f"{index:03d}.png", encode_png(crop)) for index, crop in enumerate(crops))
    return pd.DataFrame([vars(place) for place in write_shards(members, folder, images_per_shard)])


def test_crops_come_back_by_their_place_in_any_order(tmp_path):
    crops = images(7)
    table = written(tmp_path / "shards", crops, images_per_shard=3)
    assert table["shard"].nunique() == 3
    for order in ([0, 1, 2, 3, 4, 5, 6], [6, 0, 3, 2]):
        back = list(read_crops(table.iloc[order], tmp_path / "shards"))
        assert np.array_equal(back, crops[order])


def test_shards_are_plain_tar_files_with_the_same_bytes_each_time(tmp_path):
    crops = images(4)
    written(tmp_path / "one", crops, images_per_shard=4)
    written(tmp_path / "two", crops, images_per_shard=4)
    one, two = ((tmp_path / name / "crops-00000.tar").read_bytes() for name in ("one", "two"))
    assert one == two
    with tarfile.open(tmp_path / "one" / "crops-00000.tar") as archive:
        assert archive.getnames() == ["000.png", "001.png", "002.png", "003.png"]
