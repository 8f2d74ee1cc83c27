"""The ONNX operators that draw other numbers each time: they are neither evaluated nor compared."""

RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
)
