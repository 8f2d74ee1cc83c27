"""Which operators of torch are seen in ONNX's terms: every rule by one of them, every core operator or a reason."""

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402, N812
from torch import nn  # noqa: E402

from bnfold.api import fold, verify  # noqa: E402
from bnfold.frontends.torch.aten.table import OPERATORS  # noqa: E402
from bnfold.frontends.torch.graph import TorchGraphs  # noqa: E402
from bnfold.options import FoldOptions, VerifyOptions  # noqa: E402
from bnfold.rules.table import RULES  # noqa: E402
from bnfold.verification.equivalence.semantics.table import SEMANTICS  # noqa: E402
from tests.frontends.torch.modules import KINDS  # noqa: E402

WITHOUT_TORCH = {
    "CastLike": "torch names a type: Cast, or Identity where it stays",
    "Dropout": "at inference it is seen as Identity, in training as no operator of ONNX",
    "Flatten": "seen as Reshape",
    "GlobalMaxPool": "seen as MaxPool, whatever its windows",
    "Mean": "torch has no mean of several values",
    "GRU": "seen as Recurrent: its weights lie otherwise",
    "LSTM": "seen as Recurrent",
    "RNN": "seen as Recurrent",
    "ReduceSumSquare": "a sum of powers",
    "Resize": "seen as Upsample",
    "GatherND": "torch indexes by a tensor for each axis",
    "ReverseSequence": "torch has none",
    "SplitToSequence": "torch has no values that are lists",
    "Scatter": "an old name of ScatterElements",
    "ScatterND": "torch indexes by a tensor for each axis",
    "Size": "seen as Shape",
    "Squeeze": "seen as Reshape",
    "Sum": "sums of several values are sums of two",
    "Unsqueeze": "seen as Reshape",
}
"""Rules that no operator of torch is seen by, and why."""

UNSEEN = {
    "no transform passes it": """
        _fft_c2r _fft_r2c _log_softmax acos acosh asin asinh atan atan2 atan2.out atanh cos cosh cumsum elu
        erf exp expm1 gelu log log10 log1p log2 pow.Scalar pow.Tensor_Tensor prod prod.dim_int
        round sigmoid sign sin sinh tan tanh trunc ceil floor fmod.Scalar fmod.Tensor
        remainder.Scalar remainder.Tensor div.Scalar_mode div.Tensor_mode _cdist_forward _pdist_forward
        grid_sampler_2d""",
    "it makes integers or truths, or reads nothing else": """
        any any.dim any.dims argmax argmin bitwise_and.Scalar bitwise_and.Tensor bitwise_not bitwise_or.Scalar
        bitwise_or.Tensor bitwise_xor.Scalar bitwise_xor.Tensor eq.Scalar eq.Tensor ge.Scalar ge.Tensor gt.Scalar
        gt.Tensor isinf isnan le.Scalar le.Tensor logical_and logical_not logical_or logical_xor lt.Scalar lt.Tensor
        ne.Scalar ne.Tensor nonzero sym_is_contiguous
        sym_storage_offset _local_scalar_dense""",
    "it makes a tensor out of nothing, or by chance": """
        arange.start_step empty.memory_format empty_strided full full_like rand randn randperm scalar_tensor
        fill.Scalar native_dropout""",
    "it sorts, adds up, or picks entry by entry as no operator of ONNX with a rule does": """
        as_strided clamp.Tensor col2im copy diagonal embedding _embedding_bag index_put masked_scatter max.dim
        min.dim scatter.value scatter_add scatter_reduce.two select_scatter slice_scatter sort
        topk""",
    "gradients": """
        _adaptive_avg_pool2d_backward avg_pool2d_backward convolution_backward embedding_dense_backward
        max_pool2d_with_indices_backward native_group_norm_backward native_layer_norm_backward""",
}
"""Core operators of ATen that are seen as no operator of ONNX, by reason."""


class Everything(nn.Module):
    """Every operator that a rule is for."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.up = nn.Conv2d(4, 4, 3), nn.ConvTranspose2d(4, 4, 3)
        self.bn, self.inorm, self.prelu = nn.BatchNorm2d(4), nn.InstanceNorm2d(4, affine=True), nn.PReLU()
        self.linear, self.lnorm, self.lstm = nn.Linear(8, 8), nn.LayerNorm(8), nn.LSTM(8, 3)
        self.gnorm, self.rms = nn.GroupNorm(2, 4), nn.RMSNorm(8)

    def forward(self, x):
        w, rows = self.linear.weight, x.flatten(0, 2)
        return (
            self.conv(x), self.up(x), self.bn(x), self.inorm(x), self.prelu(x), self.linear(x), self.lnorm(x),
            self.lstm(w * x.mean())[0], x + x, x - x, x * w, x / 2.0, -x, x.relu(), F.leaky_relu(x), x.clamp(0, 1),
            torch.addmm(w[0], rows, w), rows @ w, torch.einsum("bchw,wo->bcho", x, w), F.avg_pool2d(x, 2),
            F.max_pool2d(x, 2), F.adaptive_avg_pool2d(x, 1), torch.cat([x, x], 1), x.split(2, 1)[0], x[:, 1:3], x[:, 2],
            x.permute(0, 2, 3, 1), x.reshape(x.shape[0], -1), x[:, :1].expand(-1, 3, -1, -1), F.pixel_shuffle(x, 2),
            F.pixel_unshuffle(x, 2), F.pad(x, (1, 1)), F.interpolate(x, scale_factor=2.0), x.mean(1), x.sum(1),
            x.amax(1), x.amin(1), x.std(1), x.var(1), F.dropout(x, training=False), x.double(),
            torch.maximum(x, x - x), torch.minimum(x, x - x), torch.where(x > 0, x, -x),
            x.gather(1, x.argsort(1)), x.scatter(1, x.argsort(1), x), x.repeat(1, 1, 2, 1),
            self.gnorm(x), self.rms(x),
            F.scaled_dot_product_attention(x, x, x), x.abs(), x.sqrt(), x.reciprocal(), x**3,
            x.norm(1, 1), x.norm(2, 1),
        )  # fmt: skip


@pytest.mark.filterwarnings("ignore")
def test_every_rule_is_for_an_operator_of_torch_or_says_why_not():
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(Everything().eval(), (torch.randn(2, 4, 8, 8),), dynamic_shapes=({0: batch},))
    seen = {node.op for node in TorchGraphs(program).graph.nodes}
    assert {op for op in RULES if "::" not in op} - seen == set(WITHOUT_TORCH)
    followed = set(SEMANTICS.by_operator) | {"SplitToSequence"}  # which nothing reads where its rule lets pass
    assert set(RULES) <= followed, "the proof follows what the planner moves"


def test_every_core_operator_is_seen_or_says_why_not():
    unseen = set()
    known = {
        full.removeprefix("aten::").split(".")[0]
        for full in torch._C._dispatch_get_all_op_names()
        if full.startswith("aten::")
    }
    for name in known:  # dir(torch.ops.aten) grows with what was used before
        packet = getattr(torch.ops.aten, name, None)
        for overload in packet.overloads() if hasattr(packet, "overloads") else ():
            full = name if overload == "default" else f"{name}.{overload}"
            if torch.Tag.core in getattr(packet, overload).tags and not name.endswith("_") and full not in OPERATORS:
                unseen.add(full)
    listed = [name for names in UNSEEN.values() for name in names.split()]
    assert len(listed) == len(set(listed))
    assert unseen == set(listed)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["lstm_behind", "layer_norm", "group_norm", "einsum", "std_behind", "channels_picked"])
def test_a_wrong_number_in_what_folded_is_found_by_the_proof(name, tmp_path):
    torch.manual_seed(0)
    program = torch.export.export(KINDS[name].module(), KINDS[name].drawn())
    folded = fold(program, options=FoldOptions(verify=None)).model
    original, target = tmp_path / "original.pt2", tmp_path / "folded.pt2"
    torch.export.save(program, original)
    options = VerifyOptions(checks=("structure", "weights"))
    torch.export.save(folded, target)
    assert verify(original, target, options).verdict == "equivalent"
    changed = [
        key
        for key, tensor in folded.state_dict.items()
        if not torch.equal(tensor, program.state_dict.get(key, tensor + 1))
    ]
    assert changed
    for key in changed:
        with torch.no_grad():
            kept = folded.state_dict[key].clone()
            folded.state_dict[key].reshape(-1)[kept.numel() // 2] *= 1.001
            torch.export.save(folded, target)
            assert verify(original, target, options).verdict != "equivalent", key
            folded.state_dict[key].copy_(kept)
