"""Files of this project in the hands of the programs they are made for, and the other way.

peer_test.py HELPER safetensors|tensorboard, where HELPER is the program built from peer_files.cpp.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

HELPER = ""


def helper(*arguments):
    return subprocess.run([HELPER, *map(str, arguments)], capture_output=True, text=True, check=False)


def check(condition, message):
    if not condition:
        raise SystemExit(f"FAILED: {message}")


def check_safetensors(folder):
    import torch
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    path = folder / "checkpoint.safetensors"
    result = helper("write", folder)
    check(result.returncode == 0, result.stderr)
    tensors = load_file(path)
    ramp = torch.arange(6, dtype=torch.float64).view(2, 3)
    types = {
        "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
        "I64": torch.int64, "I32": torch.int32, "U8": torch.uint8, "BOOL": torch.bool,
    }  # fmt: skip
    for name, dtype in types.items():
        check(tensors[name].dtype == dtype, f"{name} is {tensors[name].dtype}")
        check(torch.equal(tensors[name], ramp.to(dtype)), f"{name} holds {tensors[name]}")
    check(tensors["training/subset_ids"].tolist() == [1, 5, 9], "subset ids")
    check(tensors["training/optimizer/step"].tolist() == [33], "optimizer step")
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    check(json.loads(metadata["sage.state"])["epoch"] == 3, "the state in the header")

    theirs = folder / "theirs.safetensors"
    cases = {name: ramp.to(dtype) for name, dtype in types.items()}
    cases["scalar"] = torch.tensor(2.5)
    cases["empty"] = torch.zeros(0, 4)
    save_file(cases, theirs, metadata={"made by": "python"})
    result = helper("read", theirs)
    check(result.returncode == 0, result.stderr)
    expected = {
        "F64": "Double [2,3] 15", "F32": "Float [2,3] 15", "F16": "Half [2,3] 15", "BF16": "BFloat16 [2,3] 15",
        "I64": "Long [2,3] 15", "I32": "Int [2,3] 15", "U8": "Byte [2,3] 15", "BOOL": "Bool [2,3] 5",
        "scalar": "Float [] 2.5", "empty": "Float [0,4] 0",
    }  # fmt: skip
    got = dict(line.split(" ", 1) for line in result.stdout.splitlines())
    check(got == expected, f"read {got}")

    save_file({"other": torch.zeros(2, dtype=torch.int16)}, theirs)
    result = helper("read", theirs)
    check(result.returncode == 1 and "I16" in result.stderr, f"an unknown type: {result.stderr}")


def check_tensorboard(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = helper("write", folder)
    check(result.returncode == 0, result.stderr)

    def load():
        events = EventAccumulator(str(folder / "train"), size_guidance={"scalars": 0, "histograms": 0, "images": 0})
        events.Reload()
        return events

    events = load()
    tags = events.Tags()
    check(sorted(tags["scalars"]) == ["accuracy", "loss"], f"scalars {tags['scalars']}")
    loss = [(one.step, one.value) for one in events.Scalars("loss")]
    check([step for step, _ in loss] == list(range(6)), f"steps {loss}")
    check(all(abs(value - 1 / (1 + step)) < 1e-7 for step, value in loss), f"values {loss}")
    accuracy = events.Scalars("accuracy")[0]
    check((accuracy.step, accuracy.value) == (123456789012, 0.75), f"{accuracy}")

    histogram = events.Histograms("scores")[0].histogram_value
    check((histogram.min, histogram.max, histogram.num, histogram.sum) == (-1.0, 0.5, 4.0, 0.0), f"{histogram}")
    check(sum(histogram.bucket) == 4.0 and len(histogram.bucket) == len(histogram.bucket_limit), "histogram buckets")
    ends = [limit for limit, count in zip(histogram.bucket_limit, histogram.bucket) if count == 2.0]
    check(len(ends) == 1 and 0.5 < ends[0] <= 0.55001, f"0.5 twice, in the bucket that ends at {ends}")

    classes = events.Histograms("classes")[0].histogram_value
    got = dict(zip(classes.bucket_limit, classes.bucket))
    check(got == {-0.5: 0.0, 0.5: 3.0, 1.5: 0.0, 2.5: 2.0}, f"class counts {got}")
    check((classes.min, classes.max, classes.num, classes.sum) == (0.0, 2.0, 5.0, 4.0), f"{classes}")

    image = events.Images("samples")[0]
    check((image.width, image.height) == (3, 2), "image size")
    check(image.encoded_image_string[:8] == b"\x89PNG\r\n\x1a\n", "image is PNG")
    try:
        import io

        from PIL import Image
    except ImportError:
        print("(pixels not compared: no Pillow)")
    else:
        pixels = Image.open(io.BytesIO(image.encoded_image_string)).convert("RGB").tobytes()
        expected = [255, 0, 0, 0, 255, 0, 0, 0, 255, 10, 20, 30, 40, 50, 60, 70, 80, 90]
        check(list(pixels) == expected, f"pixels {list(pixels)}")

    import time

    time.sleep(1.1)  # file names hold seconds, and TensorBoard reads them in the order of their names
    result = helper("resume", folder)
    check(result.returncode == 0, result.stderr)
    loss = [(one.step, round(one.value, 3)) for one in load().Scalars("loss")]
    check(loss == [(0, 1.0), (1, 0.5), (2, 0.333), (3, 103.0), (4, 104.0)], f"after a resume {loss}")


def main():
    global HELPER
    HELPER = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        {"safetensors": check_safetensors, "tensorboard": check_tensorboard}[sys.argv[2]](pathlib.Path(folder))
    print("ok")


if __name__ == "__main__":
    main()
