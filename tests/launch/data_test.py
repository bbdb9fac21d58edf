"""`sage data` on folders of images and packed files, and a run from each: the whole way of a user."""

import json

import pytest
from PIL import Image
from program import fails, sage, same_tensors


def picture(path, seed, size=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size)
    image.putdata([((x * (3 + seed) + y) % 256, (seed * 40 + y * 5) % 256, (x + y) % 256)
                   for y in range(size[1]) for x in range(size[0])])  # fmt: skip
    image.save(path)


@pytest.fixture()
def photos(tmp_path):
    folder = tmp_path / "photos"
    for number in range(12):
        picture(folder / "train" / ("ants" if number % 2 else "bees") / f"{number:02}.jpg", number)
    picture(folder / "val" / "ants" / "1.png", 20)
    picture(folder / "val" / "bees" / "2.jpg", 21)
    return folder


TRAINING = ["data.name=image_folder", "data.image_size=16", "model.name=mlp", "training.epochs=2",
            "selection.mode=none", "training.batch_size=4", "data.augment.flip=true", "data.augment.randaugment=2",
            "data.augment.erasing=0.3", "data.augment.cutmix.enabled=true", "data.augment.mixup.enabled=true"]  # fmt: skip


def train(folder, *extra, ranks=1):
    result = sage("train", *TRAINING, f"output_dir={folder}", *extra, ranks=ranks)
    assert result.returncode == 0, result.stderr
    return folder / "checkpoints" / "checkpoint_epoch_2.safetensors"


def test_pack_verify_info_and_train(photos, tmp_path):
    decoded, files = tmp_path / "decoded.sage", tmp_path / "files.sage"
    result = sage("data", "pack", "image_folder", "--path", photos, "--out", decoded, "--size", 16)
    assert result.returncode == 0, result.stderr
    assert "12 train and 2 test images of image_folder, all of which decode" in result.stdout
    result = sage("data", "pack", "image_folder", "--path", photos, "--out", files, "--jpeg", "--size", 16)
    assert result.returncode == 0, result.stderr
    for name, *options in (["image_folder", "--path", photos], [decoded], [files]):
        for verb in ("info", "verify"):
            result = sage("data", verb, name, *options)
            assert result.returncode == 0, result.stderr
            assert "12 train and 2 test images of 3 x " in result.stdout and "ants" in result.stdout

    from_folder = train(tmp_path / "a", f"data.path={photos}")
    assert same_tensors(from_folder, train(tmp_path / "b", f"data.packed={decoded}"))
    assert same_tensors(from_folder, train(tmp_path / "c", f"data.packed={files}", "data.workers=3"))
    fails(sage("data", "pack", "image_folder", "--path", photos, "--out", files, "--jpeg", "--decoded"), 2, "--jpeg")
    fails(sage("train", *TRAINING, f"data.packed={decoded}", "data.name=imagenet", f"output_dir={tmp_path / 'd'}"), 2,
          "data.packed", "data.name=image_folder")  # fmt: skip


def test_a_corrupt_image_is_named_counted_and_left_out(photos, tmp_path):
    (photos / "train" / "bees" / "04.jpg").write_bytes(b"no image")
    fails(sage("data", "verify", "image_folder", "--path", photos), 3, "images that do not decode: 1", "bees/04.jpg")
    fails(sage("train", *TRAINING, f"data.path={photos}", f"output_dir={tmp_path / 'a'}"), 3, "bees/04.jpg",
          "data.corrupt_images=skip")  # fmt: skip
    # While images are read as they are used, too: the rank that meets it ends the job.
    fly = "data.augment.random_resized_crop=true"
    fails(sage("train", *TRAINING, fly, f"data.path={photos}", f"output_dir={tmp_path / 'b'}", ranks=2), 3,
          "bees/04.jpg", "data.corrupt_images=skip")  # fmt: skip
    for folder, extra in (("c", "data.augment.flip=true"), ("d", fly)):
        train(tmp_path / folder, f"data.path={photos}", "data.corrupt_images=skip", extra, ranks=2)
        metrics = json.loads((tmp_path / folder / "metrics.json").read_text())
        assert metrics["summary"]["unreadable_images"] == 1
        assert metrics["epochs"][0]["examples_seen"] == 11


def test_a_damaged_packed_file_is_named(photos, tmp_path):
    packed = tmp_path / "packed.sage"
    assert sage("data", "pack", "image_folder", "--path", photos, "--out", packed, "--size", 16).returncode == 0
    content = bytearray(packed.read_bytes())
    content[8 + 2 * 3 * 16 * 16 + 5] ^= 1
    packed.write_bytes(content)
    fails(sage("data", "verify", packed), 3, "record 2 (train/ants/05.jpg)", "checksum")
    packed.write_bytes(content[:-100])
    fails(sage("data", "info", packed), 3, "packed.sage", "sage data pack")


def test_commands_that_make_no_sense_have_one_clear_error(photos, tmp_path):
    fails(sage("data", "fetch", "imagenet"), 2, "imagenet", "cannot be fetched")
    fails(sage("data", "pack", "cifar1O", "--out", tmp_path / "x"), 2, "did you mean `cifar10`")
    fails(sage("data", "info", "image_folder", "--path", tmp_path / "nothing"), 3, "train/<class>")
    fails(sage("train", *TRAINING, f"data.path={photos}", "data.augment.crop=2",
               "data.augment.random_resized_crop=true", f"output_dir={tmp_path / 'a'}"), 2,
          "data.augment.random_resized_crop")  # fmt: skip
