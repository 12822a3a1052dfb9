"""What candidate code may name. Everything that is not here is refused: torch itself exposes os, sys and ctypes."""

from __future__ import annotations


def names(text: str) -> frozenset[str]:
    """Words of a text, as a set."""
    return frozenset(text.split())


# tensor arithmetic that exists both as torch.NAME and as a tensor method
_BOTH = names("""
abs absolute add addcdiv addcmul all amax amin aminmax any arccosh arcsinh arctan argmax argmin argsort asinh
atan atan2 bmm ceil chunk clamp clamp_max clamp_min clip clone cos cosh count_nonzero cummax cummin cumprod
cumsum deg2rad detach diag diagonal diff div divide dot eq erf erfc erfinv exp exp2 expm1 flatten flip floor
floor_divide fmax fmin fmod frac ge greater greater_equal gt heaviside hypot isclose isfinite isinf isnan
kthvalue ldexp le lerp less less_equal lgamma log log10 log1p log2 log_softmax logaddexp logaddexp2 logcumsumexp
logical_and logical_not logical_or logical_xor logit logsumexp lt masked_fill matmul max maximum mean median min
minimum mm movedim mul multiply mv nan_to_num nanmean nanmedian nanquantile nansum ne neg negative nextafter
norm not_equal numel outer permute polygamma positive pow prod quantile ravel real reciprocal relu remainder
reshape roll round rsqrt select sigmoid sign sgn sin sinc sinh softmax sort split sqrt square squeeze std sub
subtract sum swapaxes t take tan tanh tile topk transpose tril triu true_divide trunc unbind unflatten unsqueeze
var where xlogy gather scatter index_select cov corrcoef digamma
""")

_TORCH_ONLY = names("""
Tensor arange as_tensor cat concat concatenate stack hstack vstack dstack empty_like eye full full_like linspace
logspace ones ones_like tensor zeros zeros_like result_type is_tensor std_mean var_mean scalar_tensor
broadcast_tensors broadcast_to cartesian_prod combinations cdist cumulative_trapezoid trapezoid trapz bucketize
searchsorted histc einsum inner meshgrid finfo iinfo float float32 float64 double bool int int32 int64 long half
bfloat16 float16 inf pi e nan no_grad enable_grad numel atleast_1d unique clamp vmap
""")

_METHOD_ONLY = names("""
bool byte contiguous cpu dim double dtype device expand expand_as float fill_diagonal item int long
masked_select masked_scatter ndim new_full new_ones new_tensor new_zeros new_empty nelement reshape_as shape
size T mT to type_as view view_as requires_grad is_floating_point tolist repeat repeat_interleave narrow
sum_to_size clamp_ add_ mul_ sub_ div_ neg_ exp_ log_ sqrt_ masked_fill_ zero_ fill_ relu_ sigmoid_ tanh_ abs_
pow_ index_fill index_add tiny eps smallest_normal append extend keys values items get index count values
indices
""")

_FUNCTIONAL = names("""
binary_cross_entropy binary_cross_entropy_with_logits celu cosine_similarity cross_entropy dropout elu gelu glu
gaussian_nll_loss hardshrink hardsigmoid hardswish hardtanh hinge_embedding_loss huber_loss kl_div l1_loss
leaky_relu log_softmax logsigmoid margin_ranking_loss mish mse_loss multi_margin_loss nll_loss normalize one_hot
pad pairwise_distance poisson_nll_loss relu relu6 rrelu selu sigmoid silu smooth_l1_loss soft_margin_loss
softmax softmin softplus softshrink softsign tanh tanhshrink threshold
""")

_SPECIAL = names("""
digamma entr erf erfc erfcx erfinv exp2 expit expm1 gammainc gammaincc gammaln i0 i0e i1 i1e log1p log_ndtr
log_softmax logit logsumexp multigammaln ndtr ndtri polygamma psi round sinc softmax xlog1py xlogy zeta
""")

_MATH = names("""
acos acosh asin asinh atan atan2 atanh ceil comb copysign cos cosh degrees dist e erf erfc exp expm1 fabs
factorial floor fmod fsum gamma gcd hypot inf isclose isfinite isinf isnan lcm ldexp lgamma log log10 log1p log2
modf nan perm pi pow prod radians remainder sin sinh sqrt tan tanh tau trunc
""")

# random functions would make a loss irreproducible; they are named here only to give a better message
RANDOM = frozenset(
    names("""
rand randn randint randperm rand_like randn_like bernoulli multinomial normal poisson dropout rrelu random seed
manual_seed uniform_ normal_ bernoulli_ exponential_ random_ cauchy_ geometric_
""")
)

DOTTED = frozenset(
    [f"torch.{n}" for n in (*_BOTH, *_TORCH_ONLY)]
    + [f"torch.nn.functional.{n}" for n in _FUNCTIONAL if n not in RANDOM]
    + [f"torch.special.{n}" for n in _SPECIAL]
    + [f"math.{n}" for n in _MATH]
    + [f"torch.linalg.{n}" for n in ("norm", "vector_norm")]
    + ["torch", "torch.nn", "torch.nn.functional", "torch.special", "torch.linalg", "math"]
)

MODULES = frozenset(["torch", "torch.nn", "torch.nn.functional", "torch.special", "torch.linalg", "math"])

_ALIASES = {"torch.nn.functional": "torch.nn.functional as F"}
IMPORTS = tuple(_ALIASES.get(m, m) for m in sorted(MODULES))  # as people write them

ATTRIBUTES = frozenset([*_BOTH, *_METHOD_ONLY]) - RANDOM

BUILTINS = frozenset(
    names("""
abs all any bool dict divmod enumerate float int isinstance len list map max min pow range reversed round set
sorted str sum tuple zip ValueError TypeError RuntimeError ArithmeticError AssertionError ZeroDivisionError
""")
)

TYPING = frozenset(
    names("""
Any Callable Dict Final List Literal NamedTuple Optional Sequence Tuple Union Iterable Mapping
""")
) - {"NamedTuple"}

KEYWORDS = frozenset(
    names("""
a alpha axis base beta bias correction decimals default delta descending diagonal dim dims dtype end eps
equal_nan exponent full fill_value input keepdim keepdims key k label_smoothing largest log_input log_target
lambd margin max max_norm max_val min min_val n nan neginf negative_slope normalized_shape ord other p
pos_weight posinf q reduction repeats rounding_mode side size sections shifts sorted stable start step steps
strict target threshold tensor1 tensor2 tensors rtol atol to_right unbiased value values var weight weights x1
x2 y interpolation prepend append dim0 dim1 mask requires_grad src index num_classes self
""")
)
