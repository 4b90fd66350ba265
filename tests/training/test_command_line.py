"""`python -m training`: what a person types, and the one line they get when it cannot be done."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from classifier.architectures import build
from classifier.header import Header
from tests.support.checkpoints import DIGITS, PHOTOS, checkpoint, publish
from tests.support.digits import write_mnist
from tests.support.photo_files import write_folder
from tests.support.program_checkpoints import program_checkpoint
from tests.support.runs import same_weights
from tests.support.server import PATIENCE, PROJECT
from training.__main__ import main
from training.command_line import parser


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "training", *arguments],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


IMPORT = ["import", "net.pth", "--architecture", "mnist_cnn", "--labels", "ten.txt"]
# A network with batch norms, whose last feature maps of images this small are single values.
NORMED = ["strokes", "--set", "architecture=resnet18", "--set", "preprocess.mode=RGB"]
NORMED += ["--set", "preprocess.mean=[0.1,0.1,0.1]", "--set", "preprocess.std=[0.3,0.3,0.3]"]


def folders(tmp_path: Path) -> list[str]:
    return ["--store", str(tmp_path / "store"), "--runs", str(tmp_path / "runs")]


@pytest.fixture
def mnist(tmp_path: Path) -> list[str]:
    """Flags of a run on a small MNIST."""
    return ["mnist", "--data", str(write_mnist(tmp_path, train=3600, test=50)), *folders(tmp_path), "--device", "cpu"]


@pytest.mark.slow
def test_a_run_says_what_happens_and_publishes(mnist: list[str], tmp_path: Path) -> None:
    ended = run(*mnist, "--epochs", "2", "--name", "numbers", "--batch-size", "50", "--lr", "0.03", "--seed", "5")
    assert ended.returncode == 0, ended.stderr
    assert "epoch 1/2: loss" in ended.stdout
    assert "images/s" in ended.stdout
    path = tmp_path / "store" / "numbers" / "1.safetensors"
    assert f"published {path}" in ended.stdout.replace("\n", "")
    provenance = Header.read(path).manifest.provenance
    assert provenance is not None
    recipe = provenance.recipe
    assert (recipe["epochs"], recipe["batch_size"], recipe["lr"], recipe["seed"]) == (2, 50, 0.03, 5)


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_after_its_last_epoch_bit_for_bit(mnist: list[str], tmp_path: Path) -> None:
    arguments = [*mnist, "--epochs", "3"]
    assert run(*arguments).returncode == 0
    whole = tmp_path / "store" / "mnist" / "1.safetensors"
    killed = subprocess.Popen(
        [sys.executable, "-u", "-m", "training", *arguments], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    )
    assert killed.stdout is not None
    next(line for line in killed.stdout if line.startswith("epoch 2/3"))  # so epoch 3 has begun, or is about to
    killed.kill()
    killed.wait(PATIENCE)
    killed.stdout.close()
    assert run(*arguments, "--resume").returncode == 0
    assert same_weights(whole, tmp_path / "store" / "mnist" / "2.safetensors")


@pytest.mark.slow
def test_ctrl_c_is_one_line_and_130(mnist: list[str]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "training", *mnist, "--epochs", "50"],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    next(line for line in process.stdout if line.startswith("epoch 2/50"))
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, errors
    assert len(errors.splitlines()) == 1
    assert "--resume" in errors


@pytest.mark.process
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "required: COMMAND"),
        (["cifar"], "invalid choice: 'cifar'"),
        (["strokes", "--device", "abacus"], "'abacus'"),
        (["strokes", "--epochs", "0"], "epochs"),
        (["strokes", "--epochs", "many"], "invalid int value: 'many'"),
        (["strokes", "--batch-size", "0"], "batch_size"),
        (["strokes", "--lr", "nan"], "lr"),
        (["strokes", "--lr", "1e39"], "after a peak rate of 1e+39: try a lower --lr, e.g. 0.05"),
        (["strokes", "--set", "weight_decay=1e39"], "weight_decay: Input should be less than"),
        (["strokes", "--lr", "1e9"], "try a lower --lr, e.g. 0.05"),
        (["strokes", "--name", "../up"], "--name"),
        (["strokes", "--resume"], "nothing to resume"),
        (["strokes", "--from", "nowhere.safetensors"], "no such file"),
        (["strokes", "--recipe", "alexnet_transfr"], "did you mean alexnet_transfer"),
        (["strokes", "--recipe", "mine.toml"], "No such file"),
        (["strokes", "--recipe", "transfer:resnet1"], "did you mean resnet18"),
        (["strokes", "--recipe", "transfer:mnist_cnn"], "--from"),
        (["strokes", "--set", "lr"], "a key and a value"),
        (["strokes", "--set", "surprise=1"], "surprise"),
        (["strokes", "--set", "trainable=fc9"], "has no part 'fc9'"),
        (["strokes", "--set", "precision=fp16"], "bf16"),
        (["strokes", "--set", "architecture=nosuch"], "unknown architecture 'nosuch'"),
        (["strokes", "--set", "architecture=alexnet"], "alexnet cannot take images of 28x28x1"),
        (["strokes", "--set", "preprocess.resize=[4,4]"], "mnist_cnn cannot take images of 4x4x1"),
        (["strokes", "--workers", "-1"], "'-1' is not a number of processes"),
        ([*NORMED, "--batch-size", "1"], "resnet18 cannot train on one image at a time"),
        (["mnist"], "MNIST is not available"),
        (["photos"], "required: DIR"),
        (["photos", "nowhere", "--recipe", "scratch:resnet18"], "nowhere is not there"),
        (["photos", "one", "--recipe", "scratch:resnet18"], "one"),
        (["import"], "import what? Name a FILE, or --exported FILE, --pretrained ARCHITECTURE, or --network"),
        (["import", "nowhere.pth"], "No such file"),
        (["import", "net.pth", "--architecture", "mnist_cnn", "--labels", "two.txt"], "10 classes, 2 labels"),
        (["import", "net.pth", "--labels", "two.txt"], "--architecture"),
        (["import", "net.pth", "--weights", "ema"], "no weights under --weights 'ema'"),
        (["import", "net.pth", "--preprocess-from", "nowhere.safetensors"], "no such file"),
        ([*IMPORT, "--set", "epochs=3"], "here only preprocess.KEY=VALUE can be set"),
        ([*IMPORT, "--set", "preprocess.resize=[4,4]"], "mnist_cnn cannot take images of 4x4x1"),
        (["import", "--pretrained", "resnet18", "--set", "preprocess.resize=[4,4]"], "--set: --pretrained brings"),
        (["import", "--pretrained", "resnet18", "--preprocess-from", "net.pth"], "--preprocess-from: --pretrained"),
        (["import", "--pretrained", "resnet18", "--labels", "two.txt"], "--labels: --pretrained brings its own"),
        (["import", "--pretrained", "resnet18", "--network", "my_net.py:Net"], "--network: --pretrained brings"),
        (["import", "--network", "nowhere.py:Net", "--labels", "two.txt"], "nowhere.py: no such file"),
        (["import", "--network", "torch.nn:Flatten"], "what are its classes called? --labels is needed"),
        (["import", "--network", "torch.nn:Flatten", "--weights", "ema"], "--weights: --network brings its own"),
        (["import", "--network", "torch.nn:Flatten", "--labels", "two.txt"], "no parameters"),
        (["export", "nowhere.safetensors", "net.pth"], "is there already"),
        (["export", "nowhere.safetensors", "new.pth"], "nowhere.safetensors"),
        (["export", "nowhere.safetensors", "new.pth", "--format", "pt3"], "invalid choice: 'pt3'"),
        (["evaluate", "nowhere.safetensors"], "no such file"),
        (["reproduce", "net.pth"], "net.pth"),
        (["prune", "birds", "--keep", "1"], "no model 'birds'"),
        (["prune", ".", "--keep", "1"], "no model '.'"),
        (["prune", "../one", "--keep", "1"], "no model '../one'"),
        (["strokes", "--store", "~nobody-of-this-name/x"], "./~nobody-of-this-name/x"),
        (["strokes", "--recipe", "~nobody-of-this-name/x.toml"], "./~nobody-of-this-name/x.toml"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_2(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").touch()  # nothing can be downloaded into it
    (tmp_path / "two.txt").write_text("ants\nbees\n")
    (tmp_path / "ten.txt").write_text("\n".join("abcdefghij"))
    (tmp_path / "one" / "ants").mkdir(parents=True)
    torch.save(build("mnist_cnn", 10).state_dict(), tmp_path / "net.pth")
    if arguments[:1] == ["strokes"]:
        arguments = [*arguments, "--set", "source.samples=200", "--set", "source.test_samples=20"]
    try:
        code: int | str | None = main(arguments)
    except SystemExit as ended:
        code = ended.code
    errors = capsys.readouterr().err
    assert code == 2
    assert said in errors
    assert len(errors.splitlines()) == 1


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        (["strokes", "--store=~/x"], "store"),
        (["strokes", "--runs=~/x"], "runs"),
        (["mnist", "--data=~/x"], "data"),
        (["photos", "~/x"], "data"),
        (["strokes", "--from=~/x"], "parent"),
        (["strokes", "--recipe=~/x.toml"], "recipe"),
        (["import", "~/x"], "file"),
        (["import", "net.pth", "--labels=~/x"], "labels"),
        (["import", "net.pth", "--examples=~/x"], "examples"),
        (["export", "~/x", "net.pth"], "checkpoint"),
        (["export", "1.safetensors", "~/x"], "file"),
        (["evaluate", "~/x"], "checkpoint"),
        (["evaluate", "1.safetensors", "--data=~/x"], "data"),
        (["reproduce", "~/x"], "checkpoint"),
        (["prune", "digits", "--keep=1", "--store=~/x"], "store"),
    ],
)
def test_a_tilde_means_home_in_every_path(typed: list[str], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    value = getattr(parser().parse_args(typed), name)
    assert value == Path("/home/ada/x.toml" if name == "recipe" else "/home/ada/x")


@pytest.mark.slow
def test_a_version_with_a_program_lends_its_preprocess_and_is_not_gone_on_with_by_another_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = program_checkpoint(tmp_path, preprocess=DIGITS.model_copy(update={"background": 9}))
    own.save(tmp_path / "own.safetensors")
    torch.save(checkpoint().network, tmp_path / "net.pth")
    (tmp_path / "labels.txt").write_text("\n".join(own.manifest.labels))
    named = ["--architecture", "mnist_cnn", "--labels", "labels.txt", "--preprocess-from", "own.safetensors"]
    assert main(["import", "net.pth", *named]) == 0
    assert Header.read(Path("models_store/mnist_cnn/1.safetensors")).manifest.preprocess == own.manifest.preprocess
    capsys.readouterr()
    for recipe in ("mnist_cnn", "transfer:mnist_cnn"):
        assert main(["strokes", "--recipe", recipe, "--from", "own.safetensors", "--name", "next"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "net_0.py:Net" in line
    assert not Path("models_store/next").exists()


def test_weights_from_elsewhere_are_published_and_go_out_again_as_they_came(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    network = build("mnist_cnn", 2)
    state = {"epoch": 7, "arch": "mnist_cnn", "state_dict": network.state_dict(), "best_prec1": 90.0, "optimizer": {}}
    torch.save(state, tmp_path / "model_best.pth.tar")
    (tmp_path / "labels.txt").write_text("ants\nbees\n")
    assert main(["import", "--labels", "labels.txt", "model_best.pth.tar", "--name", "insects"]) == 0
    assert "published models_store/insects/1.safetensors" in capsys.readouterr().out
    assert main(["export", "models_store/insects/1.safetensors", "net.pth"]) == 0
    exported = torch.load(tmp_path / "net.pth", weights_only=True)
    assert all(exported[name].equal(tensor) for name, tensor in network.state_dict().items())
    assert "wrote net.pth and net.pth.json" in capsys.readouterr().out
    assert main(["import", "net.pth", "--name", "again"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "net.pth: says that it is of mnist_cnn",
        "published models_store/again/1.safetensors",
    ]
    before, after = (Header.read(Path(f"models_store/{name}/1.safetensors")).manifest for name in ("insects", "again"))
    assert (after.labels, after.preprocess) == (before.labels, before.preprocess)


@pytest.mark.slow
def test_a_checkpoint_is_measured_again_and_tells_how_it_was_made(
    mnist: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*mnist, "--epochs", "1", "--set", "augment.degrees=3"]) == 0
    path = str(tmp_path / "store" / "mnist" / "1.safetensors")
    capsys.readouterr()
    assert main(["evaluate", path, "--data", str(tmp_path), "--runs", str(tmp_path / "runs"), "--device", "cpu"]) == 0
    assert "the same" in capsys.readouterr().out
    assert main(["reproduce", path]) == 0
    assert "--set augment.degrees=3.0" in capsys.readouterr().out


@pytest.mark.slow
def test_the_run_s_folder_holds_its_log_its_pictures_and_what_the_tutorial_s_code_loads(
    mnist: list[str], tmp_path: Path
) -> None:
    assert main([*mnist, "--epochs", "2"]) == 0
    folder = tmp_path / "runs" / "mnist"
    assert len((folder / "log.jsonl").read_text().splitlines()) == 2
    assert {path.name for path in folder.glob("*.png")} >= {
        "mistakes.png",
        "confused.png",
        "curves.png",
        "confusion.png",
    }
    for name in ("checkpoint.pth.tar", "model_best.pth.tar"):
        state = torch.load(folder / name, weights_only=True)
        assert state["arch"] == "mnist_cnn"
        assert {"epoch", "state_dict", "best_prec1", "optimizer"} <= state.keys()
        build(state["arch"], 10).load_state_dict(state["state_dict"])
    metrics = Header.read(tmp_path / "store" / "mnist" / "1.safetensors").manifest.metrics
    assert metrics is not None
    assert metrics.calibration_error is not None


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_2(
    mnist: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    assert main([*mnist, "--epochs", "1"]) == 2
    errors = capsys.readouterr().err
    assert "the disk is full" in errors
    assert len(errors.splitlines()) == 1


@pytest.mark.process
def test_help_gives_the_defaults() -> None:
    ended = run("strokes", "--help")
    assert ended.returncode == 0
    assert "(default: 3)" in ended.stdout
    assert "(default: models_store)" in ended.stdout


@pytest.mark.slow
def test_a_torchvision_that_does_not_fit_is_one_line_whatever_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    published = publish(tmp_path / "store", 1, checkpoint(architecture="squeezenet1_1", preprocess=PHOTOS))
    weights = tmp_path / "net.pth"
    torch.save(build("squeezenet1_1", 10).state_dict(), weights)
    labels = tmp_path / "labels.txt"
    labels.write_text("".join(f"{number}\n" for number in range(10)))
    photos = write_folder(tmp_path / "photos", ants=3, bees=3)
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        monkeypatch.setitem(sys.modules, name, None)
    for command in (
        ["photos", str(photos)],
        ["strokes", "--recipe", "scratch:resnet18"],
        ["strokes", "--set", "augment.trivial=true", "--set", "source.samples=300", "--workers", "0"],
        ["mnist", "--data", str(write_mnist(tmp_path / "mnist", train=60, test=10))],
        ["import", str(weights), "--architecture", "squeezenet1_1", "--labels", str(labels)],
        ["import", "--pretrained", "squeezenet1_1"],
        ["evaluate", str(published), "--data", str(photos)],
        ["export", str(published), str(tmp_path / "out.pth")],
    ):
        where = [] if command[0] in ("export", "evaluate") else ["--store", str(tmp_path / "store")]
        runs = [] if command[0] in ("export", "import") else ["--runs", str(tmp_path / "runs")]
        assert main([*command, *where, *runs]) == 2, command
        (line,) = capsys.readouterr().err.splitlines()
        assert "torchvision does not fit the installed torch" in line, command
