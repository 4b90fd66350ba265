"""Says which of our operators a call of torch's is, where names or arguments differ, and why another is refused."""

import re
from collections.abc import Callable, Mapping

from classifier.header import CheckpointError
from classifier.program.document import Argument, DTypeRef


class Unusable(CheckpointError):
    """Something in a .pt2 file cannot be used; the message says what, and where in a person's code it comes from."""


class Composite(Unusable):
    """An operator is not served, and torch can take it apart."""


DROPOUT = "dropout was left on: call net.eval() before exporting, and give F.dropout training=self.training"
BATCH_STATISTICS = (
    "a batch norm normalizes by the batch's own statistics, so an answer depends on others of its batch: "
    "call net.eval() before exporting, and leave out track_running_stats=False"
)
_RANDOM = "it draws random numbers ({}), so its answers would not be the same twice: draw none in eval mode"
_NUMBER = "it takes a number out of a tensor, by .item(), int(), float() or `if`: compute with the tensor itself"
_COMPLEX_NUMBERS = "it computes with complex numbers ({}), which are not served"
_COUNT = "it makes a tensor whose size depends on the image ({}): use torch.where or a mask"
_CLOSED = (
    "it uses {}, a part of the network that torch keeps closed: export with .run_decompositions({{}}), and leave out "
    "torch.cond, autocast and the like"
)
# The beginning of an operator's name, and what to say of it.
_REFUSALS = (
    (r"native_dropout|.*_dropout|bernoulli|rrelu", DROPOUT),
    (r"rand|normal|multinomial|poisson|exponential|uniform", _RANDOM),
    (r"item$|_local_scalar_dense", _NUMBER),
    (r"_native_batch_norm_legit|native_batch_norm|cudnn_batch_norm|miopen_batch_norm", BATCH_STATISTICS),
    (r"fft_|_fft|complex|view_as_complex|view_as_real|real$|imag$|polar|angle|stft|istft", _COMPLEX_NUMBERS),
    (r"nonzero|masked_select|unique|_unique", _COUNT),
    (r"empty|new_empty", "it uses {}, a tensor whose values nobody has written: use torch.zeros"),
    (r"quantize|_quantized|quantized|dequantize", "it computes with quantized numbers ({}), which are not served"),
    (r"torch\.ops\.higher_order", _CLOSED),
    (r"torch\.ops\.", "it uses {}, which is no operator of torch's own, and the server runs no foreign code"),
)

_Call = tuple[str, list[Argument], dict[str, Argument]]


def _batch_norm(args: list[Argument], _: dict[str, Argument]) -> _Call:
    if args[3] is None or args[4] is None:
        return "standardize", [*args[:3], args[7]], {}
    if args[5] is not False:
        raise Unusable("a batch norm is in training mode: call net.eval() before exporting")
    return "batch_norm", [*args[:5], args[7]], {}


def _attention(args: list[Argument], keywords: dict[str, Argument]) -> _Call:
    args, rest = args[:4], dict(enumerate(args[4:]))
    if keywords.pop("dropout_p", rest.get(0, 0.0)) != 0:
        raise Unusable("dropout was left on in attention: call net.eval() before exporting")
    if keywords.pop("enable_gqa", False):
        raise Unusable("attention with fewer heads of keys than of queries is not served")
    if rest.get(1, False):
        keywords["is_causal"] = rest[1]
    return "scaled_dot_product_attention", args, keywords


def _to_type(args: list[Argument], keywords: dict[str, Argument]) -> _Call:
    types = [each for each in (*args[1:], keywords.get("dtype")) if isinstance(each, DTypeRef)]
    return ("to.dtype", [args[0], types[0]], {}) if types else ("clone", args[:1], {})


def _convolution(args: list[Argument], _: dict[str, Argument]) -> _Call:
    images, weight, bias, stride, padding, dilation, transposed, output_padding, groups = args
    if not isinstance(stride, tuple) or len(stride) not in (1, 2):
        raise Unusable("it uses a convolution of 3 dimensions, which is not served")
    if transposed:
        if len(stride) == 1:
            raise Unusable("it uses a transposed convolution of 1 dimension, which is not served")
        return "conv_transpose2d.input", [images, weight, bias, stride, padding, output_padding, groups, dilation], {}
    return f"conv{len(stride)}d", [images, weight, bias, stride, padding, dilation, groups], {}


# What has another name or other arguments here. Torch's smallest set of operators is among them.
REWRITES: Mapping[str, Callable[[list[Argument], dict[str, Argument]], _Call]] = {
    "_native_batch_norm_legit_no_training": lambda args, _: ("batch_norm", [*args[:5], args[6]], {}),
    "batch_norm": _batch_norm,
    "_native_batch_norm_legit.no_stats": lambda args, _: ("standardize", [*args[:3], args[5]], {}),
    "scaled_dot_product_attention": _attention,
    "convolution": _convolution,
    "to.dtype": _to_type,
    "to.device": _to_type,
    "to.dtype_layout": _to_type,
    "_to_copy": _to_type,
    "to.other": lambda args, _: ("type_as", args[:2], {}),
    "swapaxes": lambda args, _: ("transpose.int", args, {}),
    "swapdims": lambda args, _: ("transpose.int", args, {}),
    "_softmax": lambda args, _: ("softmax.int", args[:2], {}),
    "_log_softmax": lambda args, _: ("log_softmax.int", args[:2], {}),
    "native_layer_norm": lambda args, _: ("layer_norm", args, {}),
    "native_group_norm": lambda args, _: ("group_norm", [args[0], args[6], args[1], args[2], args[7]], {}),
    "max_pool2d_with_indices": lambda args, _: ("max_pool2d", args, {}),
    "_adaptive_avg_pool2d": lambda args, _: ("adaptive_avg_pool2d", args, {}),
    "zero": lambda args, _: ("zeros_like", args[:1], {}),
    "fill.Scalar": lambda args, _: ("full_like", args[:2], {}),
    "fill.Tensor": lambda args, _: ("expand_as", [args[1], args[0]], {}),
    "copy": lambda args, _: ("expand_as", [args[1], args[0]], {}),
}


def refusal(name: str) -> str:
    """Says why an operator cannot be used."""
    shown = name.removeprefix("torch.ops.")
    for pattern, words in _REFUSALS:
        if re.match(pattern, name):
            return words.format(shown)
    return f"it uses {shown}, which is not among the operators that are served"
