"""The table of PyTorch calls that programs are drawn from: text with places for operands.

    {f} {i} {b} {t} {n}     a tensor of floats, integers, bools, any, numbers (floats or integers); `{f2}`: of rank 2,
                            `{f1+}`: of rank 1 or more; the first place of a call is its subject, mostly
                            the same place again, too
    {&} {&f} {&i} {&b}      an operand that broadcasts with the subject: a tensor or, for `{&}`, a number at times
    {=} {=f} {=b} {=i}      a tensor of the subject's shape; `{=}`: and dtype
    {m}                     a tensor to write into
    {d} {D} {dd}            an axis of the subject; one of a tensor with an axis more; several axes
    {at} {from} {count}     an index into the axis {d} last drawn, a start and a number of elements that fit
    {ix} {ix=} {rows}       indices into it: a vector; of the subject's shape; as many as it has elements
    {shape} {groups}        the subject's shape as other axes; {k} {s} {p}: a small integer, a float, a positive float
    {corr} {kern} {step} {pad} {dil} {eps} {ord} {red} {bag}   options over their whole range: corrections of variances;
                            sizes, steps, paddings and dilations of windows; norms; how losses and bags are reduced
    {keep} {bool} {dtype}   True or False, a dtype;  {sub}: a subscript of the subject
    {new}                   a fresh name, where a call has several results; else the call's value gets one
    {w:a,b} {v:a,b}         a parameter of these sizes: the subject's axes counted from the end as `-1`, or numbers; a
                            buffer of positive numbers, such as running statistics

A statement, which gives no value, begins with `!`. What does not fit is found out by running it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from random import Random

POINTWISE = """
torch.exp({f}) | torch.log({f}) | torch.sqrt({f}) | torch.rsqrt({f}) | {f}.sin() | {f}.cos() | torch.tanh({f})
torch.sigmoid({f}) | F.relu({f}) | F.gelu({f}) | F.gelu({f}, approximate="tanh") | F.silu({f}) | F.softplus({f})
torch.erf({f}) | {t}.abs() | -{n} | {f}.reciprocal() | {f}.floor() | {f}.ceil() | {f}.round() | {f}.trunc()
{f}.frac() | {n}.sign() | torch.expm1({f}) | torch.log1p({f}) | torch.log2({f}) | torch.atan({f}) | torch.asinh({f})
{f}.exp2() | F.elu({f}) | F.leaky_relu({f}, {s}) | F.hardswish({f}) | F.hardtanh({f}, -1.5, {p}) | F.mish({f})
F.selu({f}) | F.relu6({f}) | {f}.nan_to_num() | {f}.nan_to_num(nan={s}, posinf={s}) | {f}.isnan() | {f}.isinf()
{f}.isfinite() | {n}.signbit() | ~{i} | ~{b} | {n}.clamp({k}) | {f}.clamp({s}, {p}) | {n}.clamp(max={k})
{n}.clamp_min({s}) | F.threshold({f}, 0.25, {s}) | {f}.round(decimals=1) | torch.logical_not({t}) | {n}.square()
torch.sinh({f}) | torch.cosh({f}) | torch.tan({f}) | torch.logit({f}, 1e-3) | {f}.lgamma() | F.hardshrink({f})
F.softsign({f}) | F.tanhshrink({f}) | F.logsigmoid({f}) | {f}.deg2rad() | torch.sinc({f}) | torch.erfinv({f})
torch.exp({i}) | {i}.sqrt() | torch.sigmoid({b}) | torch.clamp({n}, {&}, None) | torch.pow({s}, {n}) | {n} ** 2
{f} ** 3 | {f} ** 0.5 | {f} ** -1
"""

BINARY = """
{t} + {&} | {n} - {&} | {t} * {&} | {n} / {&} | {n} // {&} | {n} % {&} | {&} - {n} | {&} + {t} | {&} * {n} | {&} / {f}
{n} + {&} | {n} * {&} | torch.minimum({t}, {&t}) | torch.maximum({t}, {&t}) | torch.fmod({n}, {&})
torch.remainder({n}, {&}) | torch.atan2({f}, {&f}) | {f} ** {&f} | torch.hypot({f}, {&f}) | torch.copysign({f}, {&f})
{t} > {&} | {t} < {&} | {t} >= {&} | {t} <= {&} | {t} == {&} | {t} != {&} | torch.logical_and({t}, {&t})
torch.logical_xor({t}, {&t}) | {i} & {&i} | torch.bitwise_or({i}, {&i}) | {b} ^ {&b} | {b} & {&b}
torch.logical_or({b}, {&b}) | {i} << {k} | {i} >> {k} | torch.div({n}, {&}, rounding_mode="floor")
torch.div({n}, {&}, rounding_mode="trunc") | torch.where({b}, {&}, {&}) | torch.where({b}, {&f}, {s})
torch.lerp({f}, {=}, {s}) | torch.addcmul({f}, {=}, {=}, value={s}) | torch.addcdiv({f}, {=}, {=})
torch.fmax({f}, {&f}) | torch.fmin({f}, {&f}) | torch.add({n}, {&n}, alpha={k}) | torch.sub({f}, {&f}, alpha={s})
torch.rsub({n}, {&n}) | torch.heaviside({f}, {=}) | torch.xlogy({f}, {&f}) | torch.logaddexp({f}, {&f})
torch.gcd({i}, {=}) | torch.ldexp({f}, {&i}) | torch.where({b}, {k}, {s}) | torch.dist({f}, {=})
torch.isclose({f}, {&f}) | torch.isin({i}, {&i}) | torch.equal({t}, {=}) * {&n} | torch.add({f}, {&b})
torch.mul({b}, {s}) | torch.float_power({f}, 2) | torch.true_divide({i}, {&i})
torch.div({i}, {=i}.remainder(4) * 5 - 7, rounding_mode="trunc") | {i} // ({=i}.remainder(4) * 5 - 7)
torch.div({i}, {=i}.remainder(4) * 5 - 7, rounding_mode="floor") | {i} % ({=i}.remainder(4) * 5 - 7)
torch.fmod({i}, {=i}.remainder(4) * 5 - 7) | torch.remainder({k}, {i}.remainder(4) * 5 - 7)
"""

CASTS = """
{t}.to({dtype}) | {t}.to({dtype}) | {t}.float() | {t}.double() | {t}.half() | {t}.bfloat16() | {t}.int() | {t}.long()
{t}.bool() | {f}.to(torch.uint8) | {t}.type_as({&t}) | {t}.to({&t}) | {t}.to({t}.dtype, copy=True) | {t}.short()
{t}.to(torch.int8)
"""

VIEWS = """
{t2+}.transpose({d}, {d}) | {t}.permute({perm}) | {t1+}.narrow({d}, {from}, {count}) | {t1+}.select({d}, {at})
{t1+}.unfold({d}, 2, 1) | {t1+}.unfold({d}, 2, 2) | {t}.unsqueeze({D}) | {t}.squeeze() | {t1+}.squeeze({d})
{t}.expand({more}) | {t2+}.diagonal({k}, {d}, {d}) | {t2}.t() | {t2+}.mT | {t}.reshape(-1) | {t}.view(-1)
{t}.reshape({shape}) | {t}.view({shape}) | {t1+}.flip({d}) | {t2+}.movedim({d}, {d}) | {t2+}.flatten({d}, {d})
{t}.view_as({=}) | {new}, {new} = {t1+}.split([1, {t}.shape[0] - 1]) | {new}, {new} = {t1+}.chunk(2, {d})
{new}, *_ = {t1+}.unbind({d}) | {new}, *_, {new} = {t1+}.split(2, {d}) | {t1+}[{sub}] | {t1+}[{sub}] | {t1+}[{sub}]
{t1+}[{sub}] | {t}.as_strided((2, 2), (1, 1)) | {t1+}.as_strided((2, 3), (2, 1), 1) | {t}.broadcast_to({more})
{t1+}.unflatten({d}, (1, -1)) | {new}, *_ = torch.tensor_split({t1+}, 2, {d}) | {t2+}.swapaxes(0, -1)
{t}.view({dtype}) | {t}.detach() | {t}.contiguous() | {t}.clone() | torch.atleast_2d({t}) | {t}.ravel()
torch.real({f}) | {t4}.contiguous(memory_format=torch.channels_last) | {t}.data
torch.broadcast_tensors({t}, {&t})[0] | {t1+}.view({t}.shape[0], -1) | {t2+}.unfold({d}, {k}, {k})
"""

SHAPES = """
torch.cat([{t1+}, {=t}], {d}) | torch.cat([{t1+}, {=}, {=}], {d}) | torch.stack([{t}, {=t}], {D}) | {t}.repeat({reps})
{t1+}.repeat_interleave(2, {d}) | {t1+}.roll({k}, {d}) | {t2+}.roll((1, -2), (0, 1)) | {t2}.rot90() | {t}.tile(2)
torch.tril({t2+}, {k}) | torch.triu({t2+}, {k}) | torch.diag_embed({t1+}) | F.pad({t1+}, (1, {k}))
F.pad({f1+}, (-1, 2), value={s}) | F.pad({f3}, (1, 1), mode="reflect") | F.pad({f3}, (1, 2), mode="replicate")
F.pad({f3}, (1, 1), mode="circular") | torch.hstack([{t1+}, {=}]) | torch.vstack([{t1+}, {=}])
torch.meshgrid({t1}, {t1}, indexing="ij")[0] | torch.block_diag({f2}, {f2}) | torch.cartesian_prod({t1}, {t1})
{t1+}.fliplr() | {t1}.diag() | F.pad({t2+}, (0, 0, 1, 0)) | {t1+}.diff() | {f1+}.diff(n=2) | torch.kron({f}, {f})
{t1}.combinations() | torch.zeros_like({t}) | torch.ones_like({t}, dtype={dtype}) | torch.full_like({t}, {k})
{t}.new_zeros({t}.shape) | {t}.new_full((3,), {k}) | torch.arange({t1+}.shape[0])
torch.arange({t1+}.shape[0] - 1, -1, -1) | torch.arange(0, 2, 0.5) * {s} | torch.eye({t1+}.shape[0])
torch.linspace(0, 1, {t1+}.shape[0]) | torch.zeros({t1+}.shape[-1], 2) | torch.empty_like({t}).fill_({k})
torch.tensor([1, {k}, 3]) | torch.full({t}.shape, {s}) | torch.tensor({s}, dtype={dtype})
F.one_hot({i}.remainder(4).long(), 4) | F.pixel_shuffle({f4}, 1) | torch.channel_shuffle({f4}, 1)
torch.scalar_tensor({s}) | torch.tril_indices(3, {t1+}.shape[0])
"""

REDUCTIONS = """
{t}.sum() | {t1+}.sum({d}) | {t1+}.sum({d}, keepdim={bool}) | {t1+}.sum({dd}) | {f1+}.mean({d}, keepdim={bool})
{f}.mean() | {f1+}.mean({dd}) | {t1+}.amax({d}) | {t1+}.amin({dd}, keepdim=True) | {t}.max() | {t}.min()
{new}, {new} = {t1+}.max({d}) | {new}, {new} = {t1+}.min({d}, keepdim={bool}) | {n1+}.argmax({d})
{n1+}.argmin({d}, keepdim={bool}) | {n}.argmax() | {t1+}.any({d}) | {t1+}.all({d}, keepdim=True) | {t}.any()
{t}.all() | {n1+}.prod({d}) | {f1+}.var({d}) | {f1+}.std({d}, unbiased=False) | torch.var_mean({f1+}, {d})[1]
{f1+}.logsumexp({d}) | {f1+}.norm(dim={d}) | {f}.norm() | {f1+}.norm(1, {d}) | F.softmax({f1+}, {d})
F.log_softmax({f1+}, {d}) | torch.count_nonzero({t1+}, {d}) | {n1+}.cumsum({d}) | {n1+}.cumprod({d})
{new}, {new} = {n1+}.cummax({d}) | {new}, {new} = {n1+}.cummin({d}) | {f1+}.logcumsumexp({d}) | {b1+}.cumsum({d})
torch.aminmax({n})[0] | {f1+}.median({d}).values | {n1+}.median() | {f1+}.sum({d}, dtype=torch.float64)
{i1+}.sum({d}, dtype=torch.int32) | {f1+}.nansum({d}) | torch.linalg.vector_norm({f}) | F.normalize({f1+}, dim={d})
F.cosine_similarity({f1+}, {=}, {d}) | {f1+}.softmax({d}).cumsum({d}) | {f2}.trace() | {i1+}.bool().sum({d})
{new}, {new} = {n1+}.sort({d}) | {new}, {new} = {n1+}.sort({d}, descending=True) | {n1+}.argsort({d}, stable=True)
{new}, {new} = {f1+}.topk(1, {d}) | {new}, {new} = {f1+}.topk({count}, -1) | {n1+}.msort() | {n1}.unique()
{n1+}.kthvalue(1, {d}).values | {n1+}.sort({d}, stable=True).indices | torch.searchsorted({f1}.sort().values, {&f})
torch.bucketize({f}, {f1}.sort().values) | {i1}.remainder(5).bincount(minlength=5) | {t}.nonzero()
{new}, {new} = {i1}.unique(return_inverse=True) | {f1+}.quantile(0.5, {d}) | {f1+}.renorm(2, 0, {p})
torch.trapezoid({f1+}) | {f1+}.std({dd}, keepdim=True) | {f1+}.nanmean({d}) | {f2+}.cov()
{f1+}.argmax(-1, keepdim=True) | F.softmin({f1+}, {d}) | torch.histc({f}, 4, -2, 2) | {t}.count_nonzero()
"""

OPTIONS = """
{f1+}.var({d}, correction={corr}, keepdim={bool}) | {f1+}.std({dd}, correction={corr}, keepdim={bool})
{new}, {new} = torch.var_mean({f1+}, {d}, correction={corr}, keepdim={bool}) | {f}.var(correction={corr})
{new}, {new} = torch.std_mean({f1+}, {dd}, unbiased={bool}) | {f1+}.var({d}, unbiased={bool}) | {f}.std()
{t1+}.sum({dd}, keepdim={bool}) | {f1+}.mean({dd}, keepdim={bool}) | {t1+}.amax({dd}, keepdim={bool})
{t1+}.amin({d}, keepdim={bool}) | {n1+}.argmax({d}, keepdim={bool}) | {n1+}.argmin({d})
{n1+}.prod({d}, keepdim={bool}) | {f1+}.logsumexp({dd}, keepdim={bool}) | {t1+}.any({d}, keepdim={bool})
{t1+}.all({d}) | {n1+}.sum({d}, dtype={dtype}) | torch.linalg.vector_norm({f1+}, {ord}, {d}, keepdim={bool})
{f1+}.norm({ord}, {d}, keepdim={bool}) | {f1+}.norm({ord}) | F.normalize({f1+}, {ord}, {d}, eps={eps})
{new}, {new} = {f1+}.topk(1, {d}, largest={bool}) | {new}, {new} = {n1+}.sort({d}, descending={bool})
{n1+}.cumsum({d}, dtype={dtype}) | F.softmax({f1+}, {d}, dtype=torch.float64)
F.log_softmax({f1+}, {d}, dtype=torch.float32) | {n1+}.aminmax(dim={d}, keepdim={bool})[1]
{f1+}.nansum({d}, keepdim={bool})
F.max_pool2d({f4}, {kern}, stride={step}, padding={pad}, dilation={dil}, ceil_mode={bool})
F.max_pool1d({f3}, {k1}, stride={s1}, padding={p1}, ceil_mode={bool})
{new}, {new} = F.max_pool2d({f4}, {kern}, stride={step}, return_indices=True)
F.avg_pool2d({f4}, {kern}, stride={step}, padding={pad}, ceil_mode={bool}, count_include_pad={bool})
F.avg_pool2d({f4}, {kern}, stride={step}, divisor_override={k})
F.avg_pool3d({f4}, {k1}, {s1}, count_include_pad={bool})
F.avg_pool1d({f3}, {k1}, stride={s1}, padding={p1}, ceil_mode={bool}, count_include_pad={bool})
F.adaptive_avg_pool2d({f4}, {kern}) | F.adaptive_max_pool1d({f3}, {k1}) | F.adaptive_avg_pool1d({f3}, {k1})
F.lp_pool2d({f4}, 2, {k1}, stride={s1}, ceil_mode={bool})
F.unfold({f4}, {kern}, dilation={dil}, padding={pad}, stride={step})
F.conv2d({f4}, {w:3,-3,2,3}, stride={step}, padding={pad}, dilation={dil})
F.conv2d({f4}, {w:4,-3,3,3}, padding="same")
F.conv2d({f4}, {w:-3,1,3,2}, stride={step}, padding={pad}, groups={f4}.shape[1])
F.conv1d({f3}, {w:-2,1,2}, groups={f3}.shape[1])
F.conv1d({f3}, {w:2,-2,3}, {w:2}, stride={s1}, padding={p1}, dilation={k1})
F.conv1d({f3}, {w:2,-2,3}, padding="same")
F.conv_transpose2d({f4}, {w:-3,2,3,2}, stride=2, padding={pad}, output_padding={pad}, dilation={dil})
F.conv_transpose1d({f3}, {w:-2,2,3}, {w:2}, stride={s1}, padding={p1}) | F.conv3d({f4}, {w:2,-4,1,2,2}, padding={p1})
F.pad({f4}, ({q}, {q}, {q}, {q}), mode="reflect") | F.pad({f4}, ({q}, {q}, {q}, {q}), mode="replicate")
F.pad({f4}, ({q}, {q}, {q}, {q}), mode="circular") | F.pad({t2+}, ({q}, {q}, {q}, {q}), value={k})
F.pad({f1+}, ({q}, {q}), value={s}) | F.pad({f2}, ({q}, {q}), mode="replicate")
F.pad({f3}, ({q}, {q}), mode="reflect") | F.interpolate({f4}, size={kern}, mode="bilinear", align_corners={bool})
F.interpolate({f4}, size={kern}, mode="nearest") | F.interpolate({f3}, size={k1}, mode="linear", align_corners={bool})
F.interpolate({f4}, size={kern}, mode="nearest-exact")
F.interpolate({f4}, scale_factor=1.5, mode="bicubic", align_corners={bool})
F.interpolate({f4}, size={kern}, mode="area") | F.group_norm({f3+}, {f3+}.shape[1], {w:-2}, {w:-2}, eps={eps})
F.group_norm({f3}, {g}, {w:-2}, {w:-2}, eps={eps}) | F.group_norm({f4}, {g}, {w:-3}, {w:-3}, eps={eps})
F.layer_norm({f2+}, {f2+}.shape[-2:], {w:-2,-1}, eps={eps})
F.layer_norm({f1+}, {f1+}.shape[-1:], {w:-1}, {w:-1}, eps={eps})
F.rms_norm({f1+}, {f1+}.shape[-1:], {w:-1}, eps={eps})
F.batch_norm({f3}, {w:-2}, {w:-2}.abs(), {w:-2}, {w:-2}, training={bool}, momentum={mom}, eps={eps})
F.batch_norm({f2}, {w:-1}, {w:-1}.abs(), training={bool}, momentum={mom}, eps={eps})
F.batch_norm({f3}, {v:-2}, {v:-2}, {w:-2}, {w:-2}, training=True, momentum={mom}, eps={eps})
F.batch_norm({f2}, {v:-1}, {v:-1}, training={bool}, momentum={mom}, eps={eps})
F.instance_norm({f3}, {v:-2}, {v:-2}, momentum={mom}, eps={eps})
F.instance_norm({f3}, eps={eps})
F.cross_entropy({f2}, {f2}.argmax(1), {w:-1}.abs(), ignore_index={k}, reduction={red}, label_smoothing={ls})
F.nll_loss({f2}, {f2}.argmin(1), {w:-1}, reduction={red}, ignore_index={k}) | F.mse_loss({f}, {=}, reduction={red})
F.smooth_l1_loss({f}, {=}, reduction={red}, beta={p}) | F.huber_loss({f}, {=}, reduction={red}, delta={p})
F.binary_cross_entropy({f}.sigmoid(), {=}.sigmoid(), reduction={red})
F.kl_div({f}, {=}, reduction={red}, log_target={bool})
F.poisson_nll_loss({f}, {=}, log_input={bool}, full=False, reduction={red})
F.soft_margin_loss({f}, {=}, reduction={red}) | F.margin_ranking_loss({f1}, {=}, {=}, margin={p}, reduction={red})
F.hinge_embedding_loss({f}, {=}, margin={p}, reduction={red})
F.binary_cross_entropy_with_logits({f}, {=}, reduction={red}, pos_weight={w:1})
F.cosine_embedding_loss({f2}, {=}, {f1}, {s}) | F.triplet_margin_loss({f2}, {=}, {=}, margin={p}, p={k1})
F.gaussian_nll_loss({f}, {=}, {=}.abs(), full={bool}) | F.embedding({ix=}, {w:5,3}, padding_idx={k1})
F.embedding({ix=}, {w:5,3}, padding_idx=0) | F.embedding({ix}, {w:5,3}, padding_idx=-1)
F.embedding_bag({ix2}, {f2}, mode={bag}) | F.one_hot({ix}, {k1}0) | F.elu({f}, {p}) | F.celu({f}, {p})
F.softplus({f}, {p}, {p}) | F.leaky_relu({f}, {s}) | F.hardtanh({f}, {s}, {p}) | F.threshold({f}, {s}, {s})
F.softshrink({f}, {p}) | F.hardshrink({f}, {p}) | {f}.logit({eps}) | F.glu({f1+}, {d})
torch.addmm({w:-1}, {f2}, {w:-1,-1}, beta={s}, alpha={s}) | torch.addmv({w:-2}, {f2}, {w:-1}, beta={s}, alpha={s})
torch.baddbmm({f3}, {=}, {w:-3,-1,-1}, beta={k}, alpha={s}) | torch.addr({f2}, {w:-2}, {w:-1}, beta={s}, alpha={k})
torch.addbmm({w:-2,-2}, {f3}, {=}.mT, beta={s}, alpha={s}) | torch.addcmul({f}, {=}, {=}, value={k})
torch.addcdiv({f}, {=}, {=}, value={s}) | F.scaled_dot_product_attention({f3+}, {=}, {=}, scale={s}, is_causal={bool})
F.scaled_dot_product_attention({f4}, {=}, {=})
F.scaled_dot_product_attention({f4}.tile(4, 1, 1), {=}.tile(2, 1, 1), {=}.tile(2, 1, 1).cumsum(1), enable_gqa=True)
F.scaled_dot_product_attention({f3}, {=}, {=}, attn_mask={f3} @ {=}.mT)
torch.bilinear({f2}, {f2}, {w:3,-1,-1}, {w:3}) | torch.clamp({n}, {k}, {k}) | torch.clamp({f}, {&f}, {&f})
{f}.nan_to_num({s}, {s}, {s}) | {f}.round(decimals={k}) | torch.div({n}, {&n}, rounding_mode="trunc")
torch.div({n}, {&n}, rounding_mode="floor") | torch.sub({n}, {&n}, alpha={k})
torch.isclose({f}, {&f}, rtol={eps}, atol={eps}, equal_nan={bool})
torch.quantile({f1+}, 0.3, {d}, keepdim={bool}, interpolation="lower") | torch.cumulative_trapezoid({f1+}, dim={d})
torch.trapezoid({f1+}, dx={p}, dim={d}) | {t1+}.diff(n={k1}, dim={d}) | torch.tril({t2+}, {k})
torch.triu({t2+}, {k}) | {t2+}.diagonal({k}, -1, -2) | torch.diag_embed({t1+}, {k}) | {t1}.diag({k})
{t1+}.repeat_interleave({k1}, {d}) | {t2+}.roll(({k}, {k}), (-1, -2)) | {t2}.rot90({k}) | {t}.flip(-1)
{t1+}.unfold({d}, {k1}, {s1}) | {t1+}.roll({k}) | {new}, *_ = torch.tensor_split({t1+}, {k1}, {d}) | {t2+}.flatten(-2)
torch.searchsorted({f1}.sort().values, {f}, right={bool}) | torch.bucketize({f}, {f1}.sort().values, right={bool})
{n1+}.cummax({d})[0] | {f1+}.std({d}, correction={corr}).square() | torch.vander({n1}, {k1})
torch.cov({f2}, correction={corr}) | torch.corrcoef({f2}) | {f2}.matrix_power(0)
torch.linspace({s}, {p}, {t1+}.shape[0]) | torch.logspace(0, 1, {t1+}.shape[-1], base={p})
torch.arange({k}, {t1+}.shape[0] + 6, {k1}) | torch.full_like({t}, {s}, dtype={dtype})
torch.eye({t2+}.shape[0], {t2+}.shape[1]) | torch.arange({s}, 4, {p}) | {t}.new_full((2, {k1}), {k})
"""

INDEXING = """
{t1+}[{ix}] | {t2+}[:, {ix}] | {t2+}[{ix}, {ix}] | {t1+}[{ix}.unsqueeze(-1)] | {t}[{=b}] | {t2+}[{ix}, :, None]
{t1+}[..., {ix}] | {t3+}[{ix}, :, {ix}] | {t1+}.index_select({d}, {ix}) | {t1+}.gather({d}, {ix=})
{t1+}.take_along_dim({ix=}, {d}) | {t}.take({rows}) | {t}.masked_fill({=b}, {k}) | {n}.masked_fill({&b}, {s})
{t}.masked_select({=b}) | {t1+}.scatter({d}, {ix=}, {=}) | {t1+}.scatter({d}, {ix=}, {k})
{n1+}.scatter_add({d}, {ix=}, {=}) | {f1+}.scatter_reduce({d}, {ix=}, {=}, "amax")
{f1+}.scatter_reduce({d}, {ix=}, {=}, "mean", include_self={bool}) | {f1+}.scatter_reduce({d}, {ix=}, {=}, "prod")
{f1+}.scatter_reduce({d}, {ix=}, {=}, "sum", include_self=False)
{f1+}.scatter_reduce({d}, {ix=}, {=}, "prod", include_self=False)
{n1+}.scatter_reduce({d}, {ix=}, {=}, "amax", include_self=False)
{n1+}.scatter_reduce({d}, {ix=}, {=}, "amin", include_self={bool})
{n1+}.scatter_reduce({d}, {ix=}, {=}, "sum") | {t1+}.index_fill({d}, {ix}, {k})
{n1+}.index_add({d}, {ix}, {n1+}.index_select({d}, {ix}))
{f1+}.index_add({d}, {ix}, {f1+}.index_select({d}, {ix}), alpha={s})
{t1+}.index_copy({d}, {ixd}, {t1+}.index_select({d}, {ixd}))
{t1+}.slice_scatter({=}.narrow({d}, {from}, 1), {d}, 0, 1) | {t1+}.select_scatter({=}.select({d}, {at}), {d}, 0)
{t2+}.diagonal_scatter({=}.diagonal()) | {t}.masked_scatter({=b}, {=}) | {t}.index_put(({ix},), {t}.select(0, 0))
{n1+}.index_put(({ix},), {n1+}[{ix}], accumulate=True) | F.embedding({ix}, {f2}) | F.embedding({ix=}, {w:5,3})
{t1+}[{ix}][{sub}] | {t1+}[-1] | {t1+}[{t1+}.shape[0] // 2] | {t1+}[{b1}] | {t2+}[{b1}, 0]
{t1+}.index_select(0, {i1}.abs().remainder({t1+}.shape[0])) | torch.where({b})[0] | {t1+}[None, ..., {sub}]
"""

WRITES = """
!{m}.add_({&n}) | !{m}.mul_({&n}) | !{m}.sub_({k}) | !{mf}.div_({&n}) | !{m}.zero_() | !{m}.fill_({k})
!{m}.copy_({&t}) | !{m}.copy_({&}) | !{mf}.relu_() | !{m}.clamp_({k}, 5) | !{m}.neg_() | !{mf}.sigmoid_()
!{mf}.exp_() | !{m1+}[{sub}] = {k} | !{m1+}[{sub}] = {m1+}[{sub}].flip(0) | !{m1+}[{sub}] += {k}
!{m1+}[{sub}] *= {s} | !{m1+}[{ix}] = {k} | !{m1+}[{ix}] += {k} | !{m}[{=b}] = {k} | !{m}.masked_fill_({=b}, {k})
!{m1+}.scatter_({d}, {ix=}, {=}) | !{m1+}.scatter_add_({d}, {ix=}, {=})
!{m1+}.index_add_({d}, {ix}, {m1+}.index_select({d}, {ix})) | !{m1+}.index_fill_({d}, {ix}, {k})
!{m1+}.index_copy_({d}, {ixd}, {m1+}.index_select({d}, {ixd}))
!{m1+}.index_put_(({ix},), {m1+}[{ix}], accumulate=True) | !{m2+}.t().add_(1) | !{m2+}.diagonal().fill_({k})
!{m1+}.view(-1)[0] = {k} | !{m1+}.narrow({d}, {from}, {count}).mul_({k}) | !{m1+}.select({d}, {at}).copy_({k})
!{m}.add_({=}, alpha={k}) | !{mf}.addcmul_({=}, {=}, value={s}) | !{m1+}.cumsum_({d}) | !{m}.logical_not_()
!{m1+}[0] = {m1+}[-1] | !{m1+}[1:] = {m1+}[:-1] | !{m1+}[:-1] += {m1+}[1:] | !{m2+}.tril_()
!{m}.as_strided((2,), (1,)).add_(1) | !{m}.squeeze().add_(1) | !{m}.swapaxes(0, -1).mul_({&n})
!{m}.expand({more}).sum() | !torch.add({m}, {&n}, out={m}) | !torch.mul({n}, {=}, out={=})
!torch.sum({m1+}, {d}, out={m1+}.select({d}, 0)) | !{mf}.lerp_({=}, {s}) | !{m}.masked_scatter_({=b}, {=})
!{m}.pow_(2) | !{mf}.sqrt_() | !{m}.eq_({&}) | !{mf}.floor_() | !{m}.remainder_(3) | !{m}.unsqueeze({D}).add_({k})
!{m1+}.flip({d}).add_(1) | !{m1+}.unfold({d}, 2, 2).add_(1) | !{m1+}.index_put_(({ix},), {m1+}.select(0, 0))
!{m}.put_({rows}, {=}.view(-1)) | !{m1+}[..., None].mul_({k}) | {m}.add_({k}) | {m1+}[{sub}].mul_({k})
{m}.copy_({&t}) | !{m1+}[{b1}] = {k} | !{m1+}[{b1}] += 1 | !{m2+}[:, {ix}] = {k} | !{m2+}[{ix}, 0] = {m2+}[{ix}, -1]
!{m}.data.add_(1) | !{mf}.nan_to_num_() | !{m1+}.scatter_reduce_({d}, {ix=}, {=}, "amax") | !{m}.clamp_max_({k})
"""

LAYERS = """
F.linear({f1+}, {w:3,-1}, {w:3}) | F.linear({f1+}, {w:5,-1}) | {f2} @ {f2} | {f2} @ {=}.t() | {f3} @ {=}.mT
torch.bmm({f3}, {=}.transpose(1, 2)) | {f1+} @ {w:-1,4} | {f1} @ {=} | torch.outer({f1}, {f1}) | {i2} @ {=}.t()
torch.einsum("ij,kj->ik", {f2}, {=}) | torch.einsum("...j,...j->...", {f1+}, {=})
torch.addmm({w:4}, {f2}, {w:-1,4}, beta={s}) | torch.baddbmm({f3}, {=}, {=}) | torch.mv({f2}, {f1})
torch.tensordot({f2+}, {=}, 2) | F.layer_norm({f1+}, {f1+}.shape[-1:])
F.layer_norm({f1+}, {f1+}.shape[-1:], {w:-1}, {w:-1}) | F.rms_norm({f1+}, {f1+}.shape[-1:]) | F.group_norm({f3+}, 1)
F.instance_norm({f3}) | F.batch_norm({f2+}, None, None, training=True) | F.conv1d({f3}, {w:4,-2,2})
F.conv1d({f3}, {w:4,-2,3}, padding=1, stride=2) | F.conv2d({f4}, {w:3,-3,2,2})
F.conv2d({f4}, {w:4,-3,3,3}, {w:4}, padding=1) | F.conv_transpose1d({f3}, {w:-2,2,3}, stride=2)
F.max_pool1d({f3}, 2) | F.max_pool2d({f4}, 2, 1) | F.avg_pool2d({f4}, 2) | F.avg_pool1d({f3}, 2, 1, padding=1)
F.adaptive_avg_pool1d({f3}, 2) | F.adaptive_max_pool2d({f4}, 1) | F.interpolate({f3}, scale_factor=2)
F.interpolate({f4}, scale_factor=2, mode="bilinear") | F.glu(torch.cat([{f1+}, {=}], {d}), {d})
F.scaled_dot_product_attention({f3}, {=}, {=}) | F.scaled_dot_product_attention({f3+}, {=}, {=}, is_causal=True)
F.mse_loss({f}, {=}) | F.l1_loss({f}, {=}, reduction="none") | F.smooth_l1_loss({f}, {=})
F.cross_entropy({f2}, {f2}.argmax(1)) | F.nll_loss(F.log_softmax({f2}, 1), {f2}.argmin(1), reduction="sum")
F.binary_cross_entropy_with_logits({f}, torch.sigmoid({=})) | F.kl_div({f}, torch.softmax({=}, -1), reduction="none")
F.huber_loss({f}, {=}) | F.dropout({f}, 0.0) | F.unfold({f4}, 2) | torch.cdist({f2}, {=}, 1.0)
F.pairwise_distance({f2}, {=}) | F.prelu({f2+}, {w:1}) | F.hardsigmoid({f}) | F.local_response_norm({f3}, 2)
F.lp_pool1d({f3}, 2, 2) | torch.cross({f2}, {=}, -1) | torch.linalg.norm({f2}) | F.embedding_bag({ix2}, {f2})
F.scaled_dot_product_attention({f3}, {=}, {=}, attn_mask={f3}.mT @ {=} > 0)
"""

CONTROL = """
torch.cond({f}.sum() > {s}, lambda a: a.sin() * 2, lambda a: a.cos().sqrt(), ({f},))
torch.cond({b}.any(), lambda a, b: a + b, lambda a, b: a.clone(), ({n}, {=}))
torch.cond({b}.all(), lambda a, b: (a @ b).relu(), lambda a, b: b.t().exp() @ a.t(), ({f2}, {w:-1,-2}))
torch.cond({n}.max() > {k}, lambda a: a.flip(0) + {&}, lambda a: a.roll(1, 0) * {&}, ({n1+},))
torch.cond({b}.any(), lambda a: F.softmax(a, -1) @ {w:-1,4}, lambda a: F.linear(a, {w:4,-1}, {w:4}), ({f2+},))
{new}, {new} = torch.cond({b}.any(), lambda a, b: (a + 1, b), lambda a, b: (b, a * b), ({f}, {=}))
torch.cond({b}.any(), lambda a: torch.cond(a[0] > 0, lambda a: a + 1, lambda a: -a, (a,)), lambda a: a * 2, ({n1},))
torch.cond({b}.all(), lambda a: a[{at}] * 2, lambda a: a.sum(0), ({n1+},))
{new}, {new} = while_loop(lambda i, a: i < {k}, lambda i, a: (i + 1, a * 0.5 + {&f}), (torch.tensor(0), {f} + 0))
while_loop(lambda a: a.sum() > {s}, lambda a: (a - a.amax(-1, True).relu() - 1,), ({f1+}.clone(),))[0]
while_loop(lambda i, a, b: i < 4, lambda i, a, b: (i + 1, b + 0, a.sin()), (torch.tensor(0), {f} + 0, {=}.cos()))[2]
while_loop(lambda i, a: i < {k}, lambda i, a: (i + 1, (a @ {w:9,9}).sin()), (torch.tensor(0), {w:3,9} + 1))[1]
while_loop(lambda a: a[0] < 3, lambda a: (torch.cond(a[1] > 0, lambda a: a + 1, lambda a: a + 2, (a,)),), ({n1},))[0]
while_loop(lambda i, a: i < a.shape[0], lambda i, a: (i + 1, a.index_fill(0, i, 2)), (torch.tensor(0), {n1+} + 0))[1]
"""

THEMES: dict[str, tuple[str, ...]] = {
    name: tuple(c.strip() for line in text.strip().splitlines() for c in line.split(" | ") if c.strip())
    for name, text in (
        ("pointwise", POINTWISE), ("binary", BINARY), ("casts", CASTS), ("views", VIEWS), ("shapes", SHAPES),
        ("reductions", REDUCTIONS), ("options", OPTIONS), ("indexing", INDEXING), ("writes", WRITES),
        ("layers", LAYERS), ("control", CONTROL),
    )
}  # fmt: skip

VALUES: Mapping[str, Sequence[str]] = {
    "corr": ("0", "1", "2", "0.5"), "kern": ("1", "2", "3", "(2, 3)", "(3, 1)"), "step": ("1", "2", "3", "(1, 2)"),
    "pad": ("0", "0", "1", "(0, 1)"), "dil": ("1", "1", "2", "(2, 1)"), "k1": ("1", "2", "2", "3"),
    "s1": ("1", "2", "3"), "p1": ("0", "0", "1"), "q": ("0", "1", "1", "2", "3", "-1"), "g": ("1", "2", "3"),
    "eps": ("1e-5", "1e-5", "1e-3", "0.5", "1e-12"), "ord": ("1", "2", "3", "0", "inf", "-inf", "0.5"),
    "red": ('"mean"', '"sum"', '"none"'), "bag": ('"mean"', '"sum"', '"max"'), "mom": ("0.1", "0.5", "1.0", "0.0"),
    "ls": ("0.0", "0.1"),
}  # fmt: skip
"""What options may be, over their whole range."""


def _with_each_value(call: str) -> list[str]:
    """The call with each value of the option that has most: those that change what is computed come in their turn."""
    options = [name for name in re.findall(r"\{(\w+)\}", call) if name in VALUES]
    if not options:
        return [call]
    name = max(options, key=lambda n: len(set(VALUES[n])))
    return [call.replace(f"{{{name}}}", value, 1) for value in dict.fromkeys(VALUES[name])]


_ALL = [each for calls in THEMES.values() for call in calls for each in _with_each_value(call)]
CALLS: tuple[str, ...] = tuple(Random(0).sample(_ALL, len(_ALL)))
"""All calls, those of all themes among each other, with every value of their options."""
