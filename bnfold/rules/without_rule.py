"""What is said of operators without a rule, by the reason that is given."""

from __future__ import annotations

from bnfold.ir.graph import Node
from bnfold.rules.reasons import Refusal

NO_RULE = {
    "nonlinear": """
        Acos Acosh And ArgMax ArgMin Asin Asinh Atan Atanh BitCast BitShift BitwiseAnd BitwiseNot BitwiseOr
        BitwiseXor Ceil Celu Cos Cosh CumProd CumSum Det Elu Equal Erf Exp Floor Gelu GlobalLpPool Greater
        GreaterOrEqual GridSample Hardmax HardSigmoid HardSwish ImageDecoder IsInf IsNaN LRN Less
        LessOrEqual LinearAttention Log LogSoftmax LpNormalization LpPool MaxRoiPool
        MeanVarianceNormalization Mish Mod NegativeLogLikelihoodLoss NonMaxSuppression NonZero Not OneHot Or
        ReduceLogSum ReduceLogSumExp ReduceProd RegexFullMatch RoiAlign RotaryEmbedding Round Selu Shrink
        Sigmoid Sign Sin Sinh Softmax SoftmaxCrossEntropyLoss Softplus Softsign StringConcat
        StringNormalizer StringSplit SwiGLU Swish Tan Tanh TfIdfVectorizer ThresholdedRelu TopK Unique Xor
        SimplifiedLayerNormalization com.microsoft::Attention com.microsoft::BiasAdd com.microsoft::BiasGelu
        com.microsoft::BiasSoftmax com.microsoft::BiasSplitGelu
        com.microsoft::DecoderMaskedMultiHeadAttention com.microsoft::EmbedLayerNormalization
        com.microsoft::FastGelu com.microsoft::GatedRelativePositionBias com.microsoft::Gelu
        com.microsoft::GroupNorm com.microsoft::GroupQueryAttention com.microsoft::MultiHeadAttention
        com.microsoft::PackedAttention com.microsoft::PackedMultiHeadAttention com.microsoft::QuickGelu
        com.microsoft::RotaryEmbedding com.microsoft::SimplifiedLayerNormalization
        com.microsoft::SkipGroupNorm com.microsoft::SkipSimplifiedLayerNormalization
        """,
    "quantized-activation": """
        ConvInteger DequantizeLinear DynamicQuantizeLinear MatMulInteger QLinearConv QLinearMatMul
        QuantizeLinear
        com.microsoft::ConvInteger com.microsoft::DequantizeLinear com.microsoft::DynamicQuantizeMatMul
        com.microsoft::MatMulInteger16 com.microsoft::MatMulIntegerToFloat com.microsoft::QAttention
        com.microsoft::QGemm com.microsoft::QLinearAdd com.microsoft::QLinearAveragePool
        com.microsoft::QLinearConcat com.microsoft::QLinearGlobalAveragePool com.microsoft::QLinearLeakyRelu
        com.microsoft::QLinearMul com.microsoft::QLinearReduceMean com.microsoft::QLinearSigmoid
        com.microsoft::QLinearSoftmax com.microsoft::QLinearWhere com.microsoft::QuantizeLinear
        """,
    "control-flow": "If Loop Scan SequenceMap",
    "unknown-op": """
        AffineGrid Bernoulli BlackmanWindow CausalConvWithState CenterCropPad Col2Im Compress
        ConcatFromSequence Constant ConstantOfShape DFT DeformConv EyeLike HammingWindow HannWindow MaxUnpool
        MelWeightMatrix Multinomial Optional OptionalGetElement OptionalHasElement RandomNormal
        RandomNormalLike RandomUniform RandomUniformLike Range STFT SequenceAt SequenceConstruct SequenceEmpty
        SequenceErase SequenceInsert SequenceLength TensorScatter Trilu
        """,
}
"""Those of ``unknown-op`` are linear but have no rule, or make values out of none. A test holds all of onnx's to it."""

_REASON = {op: reason for reason, names in NO_RULE.items() for op in names.split()}


def no_rule(node: Node) -> Refusal:
    """Return why an operator without a rule carries no transform."""
    reason = _REASON.get(node.op, "unknown-op")
    says = {
        "nonlinear": "does not carry the transform",
        "quantized-activation": "rounds the value to integers" if "uantize" in node.op else "computes with integers",
        "control-flow": "is control flow",
        "unknown-op": "is an operator that bnfold has no rule for",
    }
    return Refusal(reason, f"{node.label} {says[reason]}")
