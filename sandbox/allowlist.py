"""What candidate code may name. Everything that is not here is refused: torch itself exposes os, sys and ctypes.

Each name is plain arithmetic on tensors or numbers: none opens files, imports, starts threads, keeps state, is random, or
hands out memory that nobody has written (`empty_like`: what the last call left there would be a way to remember).
`tests/sandbox/test_gate_calls.py` calls every one of them behind a system call filter.
"""

from __future__ import annotations

import json
from pathlib import Path


def names(text: str) -> frozenset[str]:
    """Words of a text, as a set."""
    return frozenset(text.split())


# tensor arithmetic that exists both as torch.NAME and as a tensor method
_BOTH = names("""
abs absolute acos acosh add addcdiv addcmul addmv all allclose amax amin aminmax any arccos arccosh arcsin arcsinh
arctan arctan2 arctanh argmax argmin argsort asin asinh atan atan2 atanh baddbmm bincount bmm broadcast_to ceil
chunk clamp clamp_max clamp_min clip clone copysign corrcoef cos cosh count_nonzero cov cummax cummin cumprod cumsum
deg2rad detach diag diag_embed diagonal diff digamma dist div divide dot eq equal erf erfc erfinv exp exp2 expm1
fix flatten flip fliplr float_power floor floor_divide fmax fmin fmod frac gather ge gcd greater greater_equal gt
heaviside histc hypot i0 igamma igammac index_add index_fill index_select inner isclose isfinite isinf isnan
isneginf isposinf is_floating_point is_nonzero kron kthvalue lcm ldexp le lerp less less_equal lgamma log log10
log1p log2 log_softmax logaddexp logaddexp2 logcumsumexp logical_and logical_not logical_or logical_xor logit
logsumexp lt masked_fill masked_scatter masked_select matmul max maximum mean median min minimum mm mode moveaxis
movedim msort mul multiply mv mvlgamma nan_to_num nanmean nanmedian nanquantile nansum narrow ne neg negative
nextafter nonzero norm not_equal numel outer permute polygamma positive pow prod quantile rad2deg ravel real
reciprocal relu remainder renorm repeat_interleave reshape roll round rsqrt scatter scatter_add scatter_reduce
select sigmoid sign signbit sin sinc sinh softmax sort split sqrt square squeeze std sub subtract sum swapaxes
swapdims t take take_along_dim tan tanh tile topk trace transpose tril triu true_divide trunc unbind unflatten
unique unique_consecutive unsqueeze var vdot where xlogy
""")

_TORCH_ONLY = names("""
Tensor arange as_tensor atleast_1d atleast_2d bfloat16 block_diag bool broadcast_tensors bucketize cartesian_prod cat
cdist celu column_stack combinations concat concatenate cosine_similarity cumulative_trapezoid double dstack e einsum
enable_grad eye finfo float float16 float32 float64 full full_like half hardshrink hstack iinfo inf int int32 int64
is_tensor isin isreal linspace logspace long meshgrid nan no_grad ones ones_like pairwise_distance pi result_type
scalar_tensor searchsorted selu set_grad_enabled softmax stack std_mean tensor tensordot threshold trapezoid trapz
tril_indices triu_indices var_mean vstack zeros zeros_like
""")

_METHOD_ONLY = names("""
T append bits bool contiguous cpu device dim double dtype element_size eps expand expand_as extend float get half int
item items itemsize keys long mT masked_fill_ ndim ndimension nelement new_full new_ones new_tensor new_zeros repeat
requires_grad reshape_as resolution shape size smallest_normal sum_to_size tiny to tolist type type_as values indices view
view_as abs_ add_ addcdiv_ addcmul_ ceil_ clamp_ clamp_max_ clamp_min_ clip_ copy_ cumsum_ div_ erf_ exp_ expm1_
fill_ floor_ index_fill_ index_add_ lerp_ log_ log1p_ masked_scatter_ mul_ nan_to_num_ neg_ pow_ reciprocal_ relu_
round_ rsqrt_ scatter_ scatter_add_ sigmoid_ sqrt_ square_ sub_ subtract_ multiply_ divide_ tanh_ zero_
""")

_FUNCTIONAL = names("""
binary_cross_entropy binary_cross_entropy_with_logits celu cosine_embedding_loss cosine_similarity cross_entropy elu
gaussian_nll_loss gelu glu hardshrink hardsigmoid hardswish hardtanh hinge_embedding_loss huber_loss kl_div l1_loss
layer_norm leaky_relu linear log_softmax logsigmoid margin_ranking_loss mish mse_loss multi_margin_loss nll_loss
normalize one_hot pad pairwise_distance poisson_nll_loss prelu relu relu6 selu sigmoid silu smooth_l1_loss
soft_margin_loss softmax softmin softplus softshrink softsign tanh tanhshrink threshold triplet_margin_loss
""")

# modules without parameters, as in `nn.LogSigmoid()(x)`
_NN = names("""
BCEWithLogitsLoss CELU CosineEmbeddingLoss CrossEntropyLoss ELU GELU GaussianNLLLoss Hardsigmoid Hardtanh
HingeEmbeddingLoss HuberLoss Identity KLDivLoss L1Loss LeakyReLU LogSigmoid LogSoftmax MSELoss MarginRankingLoss
Mish NLLLoss PoissonNLLLoss ReLU ReLU6 SELU SiLU Sigmoid SmoothL1Loss SoftMarginLoss Softmax Softmin Softplus
Softshrink Softsign Tanh Tanhshrink
""")

_SPECIAL = names("""
digamma entr erf erfc erfcx erfinv exp2 expit expm1 gammainc gammaincc gammaln i0 i0e i1 i1e log1p log_ndtr
log_softmax logit logsumexp multigammaln ndtr ndtri polygamma psi round sinc softmax xlog1py xlogy zeta
""")

_MATH = names("""
acos acosh asin asinh atan atan2 atanh cbrt ceil comb copysign cos cosh degrees dist e erf erfc exp exp2 expm1 fabs
factorial floor fmod frexp fsum gamma gcd hypot inf isclose isfinite isinf isnan isqrt lcm ldexp lgamma log log10 log1p
log2 modf nan nextafter perm pi pow prod radians remainder sin sinh sqrt tan tanh tau trunc ulp
""")

# random functions would make a loss irreproducible; they are named here only to give a better message
RANDOM = names("""
rand randn randint randperm rand_like randn_like bernoulli multinomial normal poisson dropout rrelu random seed
manual_seed uniform_ normal_ bernoulli_ exponential_ random_ cauchy_ geometric_ gumbel_softmax Dropout
""")

MODULES = names("torch torch.nn torch.nn.functional torch.special torch.linalg math")
DOTTED = frozenset(
    [f"torch.{n}" for n in (*_BOTH, *_TORCH_ONLY)]
    + [f"torch.nn.{n}" for n in _NN]
    + [f"torch.nn.functional.{n}" for n in _FUNCTIONAL]
    + [f"torch.special.{n}" for n in _SPECIAL]
    + [f"torch.linalg.{n}" for n in ("norm", "vector_norm")]
    + [f"math.{n}" for n in _MATH]
    + [*MODULES]
)

_ALIASES = {"torch.nn.functional": "torch.nn.functional as F"}
IMPORTS = tuple(_ALIASES.get(m, m) for m in sorted(MODULES))  # as people write them

ATTRIBUTES = _BOTH | _METHOD_ONLY
IN_PLACE = frozenset(n for n in ATTRIBUTES if n.endswith("_")) | {"append", "extend"}
# these may return their argument or a part of it instead of something new
VIEWS = names("""
T as_tensor atleast_1d atleast_2d broadcast_tensors broadcast_to bool cartesian_prod chunk contiguous cpu detach
diag diagonal double einsum expand expand_as fix flatten float half int long mT meshgrid moveaxis movedim narrow
permute positive ravel real reshape reshape_as select split squeeze sum_to_size swapaxes swapdims t to transpose
type type_as unbind unflatten unsqueeze view view_as
""")
CONTAINER_METHODS = names("get items keys values")

BUILTINS = names("""
abs all any bool dict divmod enumerate filter float frozenset int isinstance len list map max min pow range reversed
round set sorted str sum tuple zip ArithmeticError AssertionError Exception FloatingPointError IndexError KeyError
NotImplementedError OverflowError RuntimeError TypeError ValueError ZeroDivisionError
""")
EXCEPTIONS = frozenset(n for n in BUILTINS if n[0].isupper())

# in annotations only
TYPING_MODULES = names("typing collections.abc")
TYPING = names("""
Any Callable Dict Final FrozenSet Iterable Iterator List Literal Mapping Optional Sequence Set Tuple TypeAlias Union
""")
TENSOR_TYPES = names("""
torch.Tensor torch.FloatTensor torch.DoubleTensor torch.LongTensor torch.IntTensor torch.BoolTensor torch.HalfTensor
torch.BFloat16Tensor torch.dtype torch.device torch.Size
""")

# names of functions, of methods (".sum") and of built-ins ("builtins.max"), each with the keywords that it has; derived from
# torch by `python -m tests.sandbox.make_keywords`
KEYWORDS_OF: dict[str, tuple[str, ...]] = {
    name: tuple(keywords.split())
    for name, keywords in json.loads(Path(__file__).with_name("keywords.json").read_text(encoding="utf-8")).items()
}
KEYWORDS = frozenset(keyword for keywords in KEYWORDS_OF.values() for keyword in keywords)
# keywords that are refused, and mean nothing at these values
IDLE_KEYWORDS: dict[str, bool | None] = {
    "inplace": False, "out": None, "pin_memory": False, "generator": None, "memory_format": None, "layout": None,
    "size_average": None, "reduce": None,
}  # fmt: skip

# calls with at most so many arguments, all by position: the next one would be `out`, `inplace`, or needs lazy imports
POSITIONAL = {
    "torch.norm": 4, "torch.nn.functional.normalize": 4, "torch.tensordot": 3, "torch.nn.functional.relu": 1,
    "torch.nn.functional.relu6": 1, "torch.nn.functional.silu": 1, "torch.nn.functional.mish": 1,
    "torch.nn.functional.selu": 1, "torch.nn.functional.hardswish": 1, "torch.nn.functional.hardsigmoid": 1,
    "torch.nn.functional.elu": 2, "torch.nn.functional.celu": 2, "torch.nn.functional.leaky_relu": 2,
    "torch.nn.functional.hardtanh": 3, "torch.nn.functional.threshold": 3,
    "torch.nn.functional.binary_cross_entropy": 2, "torch.nn.ReLU": 0, "torch.nn.ReLU6": 0, "torch.nn.SiLU": 0,
    "torch.nn.Mish": 0, "torch.nn.SELU": 0, "torch.nn.Hardsigmoid": 0, "torch.nn.ELU": 1, "torch.nn.CELU": 1,
    "torch.nn.LeakyReLU": 1, "torch.nn.Hardtanh": 2,
}  # fmt: skip
# modules that keep an argument under a name that candidates may use for something else: the number that a tensor's `.dim()`
# gives, or the `.eps` of a dtype
KEEPERS = frozenset(f"torch.nn.{n}" for n in ("GaussianNLLLoss", "LogSoftmax", "PoissonNLLLoss", "Softmax", "Softmin"))
GRADIENT_MODES = names("torch.no_grad torch.enable_grad torch.set_grad_enabled")
DECORATORS = names("torch.no_grad torch.enable_grad")  # the third one sets the mode where it stands
# statements about the language that Python 3 understands and that change nothing any more, and one about annotations
FUTURE = names("""
absolute_import annotations division generator_stop generators nested_scopes print_function unicode_literals with_statement
""")
