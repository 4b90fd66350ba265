"""Changes a built-in recipe as a person wants it: by a TOML file, and by single settings."""

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, JsonValue, ValidationError

from classifier.preprocess import Preprocess
from training.errors import TrainingError
from training.networks.code_files import is_own_code
from training.recipes.builtin import builtin
from training.recipes.recipe import Recipe, in_words


def from_file(data: str, path: Path, *, network: str | None = None) -> Recipe:
    """Reads a recipe from a TOML file.

    In the file, `base` names the built-in recipe that it changes. The other keys are those of `Recipe`, and the value
    "none" takes away what the base has.

    Args:
        network: the architecture of own code, as for `builtin`.

    Raises: TrainingError if the file cannot be read, or is not a recipe.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TrainingError(f"--recipe {path}: {error.strerror}") from error
    except ValueError as error:  # no TOML, no UTF-8
        raise TrainingError(f"--recipe {path}: {error}") from error
    base = values.pop("base", None)
    if not (base is None or isinstance(base, str)):
        raise TrainingError(f"--recipe {path}: base is the name of a recipe, not {base!r}")
    return _changed_by_hand(builtin(data, base, network=network), _with_nothing(values))


def changed(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """Returns `recipe` with some values replaced. A nested group of values is changed, not replaced.

    Raises: TrainingError, which names the field that is not known or out of range.
    """
    return Recipe.checked(_merged(recipe.model_dump(), values))


def with_settings(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """Returns `recipe` changed by settings of the form `key=value`.

    A key may have dots, as in `augment.flip`. A value is written as in TOML, or is a word.

    Raises: TrainingError, which names the setting that makes no sense.
    """
    return _changed_by_hand(recipe, _values(settings, example="label_smoothing=0.1"))


def preprocess_with(preprocess: Preprocess, settings: Sequence[str]) -> Preprocess:
    """Returns `preprocess` changed by settings of the form `preprocess.key=value`, as `with_settings` reads them.

    Raises: TrainingError, which names the setting that makes no sense.
    """
    values = _values(settings, example="preprocess.resize=[64,64]")
    others = [key for key in values if key != "preprocess"]
    if others or not isinstance(values.get("preprocess", {}), Mapping):
        raise TrainingError(
            f"--set {(others or ['preprocess'])[0]}: here only preprocess.KEY=VALUE can be set, "
            "and network.KEY=VALUE for a network of your own"
        )
    merged = _merged({"preprocess": preprocess.model_dump()}, _without_misfits(preprocess, values))
    try:
        return _Preprocessed.model_validate(merged).preprocess
    except ValidationError as error:
        raise TrainingError(f"--set {in_words(error.errors()[0])}") from error


def network_values(settings: Sequence[str]) -> dict[str, JsonValue]:
    """Returns the values of settings of the form `network.key=value`, as `with_settings` reads them.

    Raises: TrainingError, which names the setting that makes no sense.
    """
    values = _values(settings, example="network.width=32").get("network", {})
    if not isinstance(values, dict):
        raise TrainingError(f"--set network={values}: a key is needed, e.g. --set network.width=32")
    return values


class _Preprocessed(BaseModel):
    preprocess: Preprocess


def settings_from(base: Recipe, recipe: Recipe) -> list[str]:
    """Returns the settings by which `with_settings` makes `recipe` of `base`."""
    ours, theirs = _flat(recipe.every_value), _flat(base.every_value)
    differ = {key for key, value in ours.items() if key not in theirs or theirs[key] != value}
    if "preprocess.resize" in differ:
        differ.add("preprocess.crop")  # for a new size alone may take the crop away
    if "preprocess.mode" in differ:
        differ.add("preprocess.ink_on_paper")
    return [
        f"{key}={_text(value, bare=not key.startswith('network.'))}" for key, value in ours.items() if key in differ
    ]


def _changed_by_hand(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    if "name" in values:
        raise TrainingError("name: a recipe keeps that of the built-in one it was made from; --name names the model")
    if "architecture" in values and any(map(is_own_code, (recipe.architecture, values["architecture"]))):
        raise TrainingError(f"architecture: {values['architecture']}: --network alone names a network of your own")
    source = values.get("source")
    if isinstance(source, Mapping) and "kind" in source:
        raise TrainingError("source.kind: the command names the data, e.g. python -m training mnist")
    return changed(recipe, _without_misfits(recipe.preprocess, values))


def _without_misfits(before: Preprocess, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Takes away what nobody named and what does not fit to the new values.

    A crop that is larger than the new (height, width) of all images was meant for the size before, and would put a
    black frame around each image. In colour there is no ink that is dark or bright.
    """
    told = values.get("preprocess")
    if not isinstance(told, Mapping):
        return values
    misfits: dict[str, Any] = {}
    if "crop" not in told and _is_smaller(told.get("resize"), before.crop):
        misfits["crop"] = None
    if told.get("mode") == "RGB" and "ink_on_paper" not in told:
        misfits["ink_on_paper"] = False
    return _merged(values, {"preprocess": misfits}) if misfits else values


def _is_smaller(resize: object, crop: tuple[int, int] | None) -> bool:
    if crop is None or not isinstance(resize, list) or len(resize) != len(crop):
        return False
    return not all(isinstance(edge, int) and edge >= cut for edge, cut in zip(resize, crop, strict=True))


def _values(settings: Sequence[str], *, example: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for setting in settings:
        key, separator, text = setting.partition("=")
        if not separator:
            raise TrainingError(f"--set {setting}: a key and a value are needed, e.g. --set {example}")
        value: Any = _value(text.strip())
        for part in reversed(key.strip().split(".")):
            value = {part: value}
        values = _merged(values, value)
    return values


def _with_nothing(values: Mapping[str, Any]) -> dict[str, Any]:
    """Replaces the word "none" by None, for which TOML has no word."""
    return {
        key: None if value == "none" else _with_nothing(value) if isinstance(value, Mapping) else value
        for key, value in values.items()
    }


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(old)
    for key, value in new.items():
        before = merged.get(key)
        merged[key] = _merged(before, value) if isinstance(before, Mapping) and isinstance(value, Mapping) else value
    return merged


def _value(text: str) -> Any:
    if text in ("none", "null", "None"):
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text  # a word, as most people type one


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _text(value: Any, *, bare: bool) -> str:
    """Writes a value so that `_value` reads it. A string may stand without quotes if it is `bare`."""
    match value:
        case None:
            return "none"
        case bool():
            return str(value).lower()
        case list():
            return f"[{','.join(_text(each, bare=bare) for each in value)}]"
        case dict():
            return f"{{{', '.join(f'{json.dumps(key)} = {_text(each, bare=bare)}' for key, each in value.items())}}}"
        case str():
            return value if bare else json.dumps(value, ensure_ascii=False)
    return str(value)
