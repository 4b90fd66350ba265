"""A person's own code makes a network, or one line says what is wrong with it, and in which line."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.own_code import SMALL
from training.errors import TrainingError
from training.networks import own_code

Write = Callable[..., str]

GREY = (1, 28, 28)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file, and returns its path."""

    def write(text: str, name: str = "my_net.py") -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


@pytest.fixture
def refused(write: Write, tmp_path: Path) -> Callable[..., str]:
    """Returns what is said of a file, with the paths without their folder."""

    def refused(text: str, name: str = "Net", **options: Any) -> str:
        file = write(text)
        with pytest.raises(TrainingError) as caught:
            own_code.build(own_code.load(f"{file}:{name}").architecture, 10, GREY, options)
        message = str(caught.value)
        assert "\n" not in message
        return message.replace(f"{tmp_path}/", "")

    return refused


def a_class(body: str = "self.fc = nn.Linear(9, 10)", arguments: str = "") -> str:
    return (
        f"from torch import nn\n\nclass Net(nn.Module):\n    def __init__(self{arguments}):\n"
        f"        super().__init__()\n        {body}\n"
    )


def test_a_class_gets_what_its_signature_has(write: Write) -> None:
    file = write(
        "from torch import nn\n"
        "def make(num_classes, *, image_size, in_channels=9, width=4):\n"
        "    net = nn.Linear(1, 1)\n"
        "    net.told = (num_classes, image_size, in_channels, width)\n"
        "    return net\n"
    )
    architecture = own_code.load(f"{file}:make").architecture
    assert architecture == "my_net.py:make"
    assert own_code.build(architecture, 7, (3, 20, 20), {"width": 2}).told == (7, 20, 3, 2)
    assert own_code.build(architecture, 7, (1, 20, 30), {}).told == (7, (20, 30), 1, 4)


def test_keywords_that_are_not_named_take_the_number_of_classes(write: Write) -> None:
    file = write(
        "from torch import nn\ndef make(**kwargs):\n    n = nn.Linear(1, 1)\n    n.told = kwargs\n    return n\n"
    )
    assert own_code.build(f"{file}:make", 7, GREY, {"depth": 3}).told == {"num_classes": 7, "depth": 3}


def test_a_method_of_a_class_may_make_the_network(write: Write) -> None:
    file = write(a_class() + "    @classmethod\n    def tiny(cls, num_classes):\n        return cls()\n")
    assert own_code.load(f"{file}:Net.tiny").takes_num_classes


def test_an_installed_module_is_found_by_its_name() -> None:
    assert type(own_code.build("classifier.architectures:MnistCnn", 3, GREY, {})).__name__ == "MnistCnn"
    code = own_code.known("classifier.architectures:MnistCnn").manifest()
    assert code is not None
    assert (code.file, code.imports) == ("classifier.architectures", None)
    assert "class MnistCnn" in code.text


def test_the_code_is_kept_as_it_was_when_it_ran(write: Write) -> None:
    file = write(SMALL)
    code = own_code.load(f"{file}:Small")
    Path(file).write_text("changed since")
    kept = code.manifest()
    assert kept is not None
    assert (kept.file, kept.text, kept.imports) == ("my_net.py", SMALL, None)
    assert kept.sha256 == code.file.hashes["my_net.py"]


def test_a_changed_file_is_another_though_size_and_time_are_the_same(write: Write, tmp_path: Path) -> None:
    file = write("def make():\n    return 1\n")
    first = own_code.load(f"{file}:make")
    write("def make():\n    return 2\n")
    second = own_code.load(f"{file}:make")
    assert (first.factory(), second.factory()) == (1, 2)
    assert not (tmp_path / "__pycache__").exists()


def test_files_that_it_imports_from_its_folder_are_named(write: Write, tmp_path: Path) -> None:
    (tmp_path / "parts_of_it").mkdir()
    write("from torch import nn\nHead = nn.Linear\n", "parts_of_it/__init__.py")
    write("WIDTH = 9\n", "sizes_of_it.py")
    file = write(
        "import json\nfrom parts_of_it import Head\nfrom sizes_of_it import WIDTH\n"
        + a_class("self.fc = Head(WIDTH, 10)")
    )
    code = own_code.load(f"{file}:Net")
    kept = code.manifest()
    assert kept is not None
    assert kept.imports == ("parts_of_it/__init__.py", "sizes_of_it.py")
    assert set(code.file.hashes) == {"my_net.py", "parts_of_it/__init__.py", "sizes_of_it.py"}


def test_a_helper_may_be_imported_later(write: Write) -> None:
    write("WIDTH = 9\n", "late_sizes.py")
    file = write(a_class("from late_sizes import WIDTH; self.fc = nn.Linear(WIDTH, 10)"))
    assert own_code.build(f"{file}:Net", 10, GREY, {}) is not None


def test_a_file_may_be_called_like_a_module_of_python(write: Write) -> None:
    import http

    file = write(a_class(), "http.py")
    assert own_code.load(f"{file}:Net").architecture == "http.py:Net"
    assert importlib.import_module("http") is http
    assert importlib.import_module("http.cookies").__name__ == "http.cookies"


def test_a_name_may_have_a_hyphen(write: Write) -> None:
    file = write(
        "import dataclasses\n" + a_class() + "@dataclasses.dataclass\nclass C:\n    a: 'int' = 1\n", "my-net.py"
    )
    assert own_code.load(f"{file}:Net").architecture == "my-net.py:Net"


def test_a_file_that_is_called_like_an_installed_package_is_refused(write: Write) -> None:
    file = write(a_class(), "torch.py")
    with pytest.raises(TrainingError, match=r"torch\.py is called like the package torch"):
        own_code.load(f"{file}:Net")


def test_layers_that_take_their_shape_from_an_image_get_it(write: Write) -> None:
    file = write(
        a_class("self.net = nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))", ", num_classes")
        + "    def forward(self, x):\n        return self.net(x)\n"
    )
    network = own_code.build(f"{file}:Net", 3, GREY, {})
    assert network.state_dict()["net.1.weight"].shape == (3, 784)
    assert network.training


def test_random_numbers_are_as_they_were_after_code_is_loaded_and_looked_at(write: Write) -> None:
    file = write("import torch\ntorch.manual_seed(5)\n" + SMALL)
    before = torch.get_rng_state()
    own_code.load(f"{file}:Small")
    own_code.meta("my_net.py:Small", 2, GREY, {})
    assert torch.get_rng_state().equal(before)


def test_a_network_without_values_is_made_once(write: Write) -> None:
    file = write(
        "calls = []\n" + a_class("calls.append(num_classes); self.fc = nn.Linear(9, num_classes)", ", num_classes")
    )
    code = own_code.load(f"{file}:Net")
    for classes in (2, 3, 2, 3):
        network = own_code.meta("my_net.py:Net", classes, GREY, {})
        assert network.state_dict()["fc.weight"].shape == (classes, 9)
        assert network.state_dict()["fc.weight"].is_meta
    assert code.file.module.calls == [2, 3]


def test_a_constructor_may_compute_with_tensors(write: Write) -> None:
    file = write("import torch\n" + a_class("self.fc = nn.Linear(int(torch.linspace(0, 9, 3)[2].item()), 10)"))
    assert own_code.meta(own_code.load(f"{file}:Net").architecture, 2, GREY, {}).state_dict()["fc.weight"].shape == (
        10,
        9,
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("class Net(:\n", "my_net.py:1: invalid syntax"),
        ("import torch\n\n  x = 1\n", "my_net.py:3: unexpected indent"),
        ("import torch\nimport no_such_module\n", "my_net.py:2: ModuleNotFoundError: No module named 'no_such_module'"),
        ("import torch\n\n1 / 0\n", "my_net.py:3: ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit('bye')\n", "my_net.py:2: it ends Python where it should only define the network"),
        ("from torch import nn\nclass Nett(nn.Module): ...\n", "my_net.py has no class or function 'Net'; it has Nett"),
        ("x = 1\n", "my_net.py has no class or function 'Net'"),
        ("Net = 5\n", "my_net.py: Net is an int, neither a class nor a function"),
        (
            "from torch import nn\nNet = nn.Linear(1, 1)\n",
            "my_net.py: Net is a network that is made already: name its class, Linear",
        ),
        ("def Net():\n    return 5\n", "my_net.py:1: my_net.py:Net makes an int, not a torch.nn.Module"),
        ("def Net():\n    pass\n", "my_net.py:1: my_net.py:Net makes a NoneType, not a torch.nn.Module"),
        (a_class("raise ValueError('no\\n  width')"), "my_net.py:6: ValueError: no width"),
        (a_class("import sys; sys.exit()"), "my_net.py:6: SystemExit"),
        (
            a_class("self.fc = nn.Linear(9, 10).to('meta')"),
            "my_net.py:4: my_net.py:Net puts fc.weight on meta: leave it on the CPU",
        ),
        (
            a_class("self.drop = nn.Dropout()"),
            "my_net.py:4: my_net.py:Net has no parameters: there is nothing to train",
        ),
        (
            a_class(arguments=", depth"),
            "my_net.py:4: my_net.py:Net wants depth, which is not given (num_classes, in_channels, image_size are): r",
        ),
        (a_class(arguments=", depth, /"), "my_net.py:4: depth of my_net.py:Net cannot be given by its name"),
        (
            a_class("self.fc = nn.LazyLinear(10)"),
            'my_net.py:4: NotImplementedError: Module [Net] is missing the required "forward" function',
        ),
    ],
)
def test_what_is_wrong_with_the_code_is_one_line(refused: Callable[..., str], text: str, said: str) -> None:
    assert refused(text).startswith(said)


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        (", width=1", {"depth": 3}, "network.depth: my_net.py:4: my_net.py:Net takes width"),
        ("", {"depth": 3}, "network.depth: my_net.py:4: my_net.py:Net takes nothing"),
        (", num_classes", {"num_classes": 3}, "network.num_classes: the data and the preprocess decide it"),
    ],
)
def test_an_option_that_the_constructor_does_not_take_is_refused(
    refused: Callable[..., str], arguments: str, options: dict[str, int], said: str
) -> None:
    assert refused(a_class(arguments=arguments), **options).startswith(said)


def test_an_error_in_a_helper_names_the_helper(refused: Callable[..., str], write: Write) -> None:
    write("\ndef head(n):\n    raise ValueError('no head')\n", "broken_helper.py")
    assert refused("from broken_helper import head\n" + a_class("head(3)")) == "broken_helper.py:3: ValueError: no head"


def test_an_error_while_a_helper_is_imported_names_both(refused: Callable[..., str], write: Write) -> None:
    write("\n1 / 0\n", "broken_import.py")
    assert (
        refused("from broken_import import head\n")
        == "my_net.py:1: ZeroDivisionError: division by zero (broken_import.py:2)"
    )
    write("\n)\n", "broken_syntax.py")
    assert refused("import broken_syntax\n").startswith("broken_syntax.py:2: unmatched ')'")


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("my_net.py", "'my_net.py' names no network: that is a file, a colon and a class, as in my_net.py:Net"),
        (":Net", "names no network"),
        ("my_net.py:", "names no network"),
        ("nowhere/my_net.py:Net", "nowhere/my_net.py: no such file"),
        ("no_such_package.nets:Net", "there is no module no_such_package.nets; the name of a file ends in .py"),
        ("json.nets:Net", "there is no module json.nets"),
        ("json:Net", "json has no class or function 'Net'"),
        ("my net:Net", "there is no module my net"),
        (".relative:Net", "there is no module .relative"),
    ],
)
def test_what_names_no_network_is_refused(typed: str, said: str) -> None:
    with pytest.raises(TrainingError) as caught:
        own_code.load(typed)
    assert said in str(caught.value)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "my_net.py").write_bytes(b"x = '\xff'\n")
    with pytest.raises(TrainingError, match="is no text as UTF-8"):
        own_code.load(f"{tmp_path}/my_net.py:Net")
    (tmp_path / "my_net.py").write_bytes(b"x = 1\0\n")
    with pytest.raises(TrainingError, match=r"my_net\.py"):
        own_code.load(f"{tmp_path}/my_net.py:Net")


def test_ctrl_c_in_the_code_is_ctrl_c(write: Write) -> None:
    file = write("raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        own_code.load(f"{file}:Net")
