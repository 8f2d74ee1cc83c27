"""Small torch modules of every kind that a fold meets, and what must become of their BatchNorms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


@dataclass(frozen=True)
class Kind:
    """``folded`` of the module's BatchNorms go, ``kept`` stay for the reasons named. ``drawn`` makes the inputs.

    ``decomposed`` of them go where nothing works in place any more, if that makes a difference.
    """

    module: Callable[[], nn.Module]
    drawn: Callable[[], tuple[Tensor, ...]]
    folded: int
    kept: tuple[str, ...] = ()
    dynamic: bool = False
    decomposed: int | None = None


class Made(nn.Module):
    """A module from layers and a function of them."""

    def __init__(self, run: Callable[..., Tensor], **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self._run = run

    def forward(self, x: Tensor) -> Tensor:
        return self._run(self, x)


def trained(module: nn.Module) -> nn.Module:
    """In evaluation mode, with statistics as training leaves them; some scales negative."""
    torch.manual_seed(1)
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            if part.running_mean is not None:
                part.running_mean.normal_(0, 0.5)
                part.running_var.uniform_(0.5, 2)
                part.num_batches_tracked.fill_(7)
            if part.weight is not None:
                with torch.no_grad():
                    part.weight.uniform_(0.5, 1.5).mul_(torch.randn_like(part.weight).sign())
                    part.bias.normal_(0, 0.5)
    return module.eval()


def positive(module: nn.Module) -> nn.Module:
    module = trained(module)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.weight.abs_()
    return module


def image(channels: int = 3, size: int = 8) -> Callable[[], tuple[Tensor]]:
    return lambda: (torch.randn(2, channels, size, size),)


def row(features: int = 6) -> Callable[[], tuple[Tensor]]:
    return lambda: (torch.randn(4, features),)


def seq(*layers: nn.Module) -> Callable[[], nn.Module]:
    return lambda: trained(nn.Sequential(*layers))


def made(run: Callable[..., Tensor], layers: Callable[[], dict[str, nn.Module]]) -> Callable[[], nn.Module]:
    return lambda: trained(Made(run, **layers()))


def half(dtype: torch.dtype) -> Callable[[], nn.Module]:
    return lambda: trained(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())).to(dtype)


def functional(module: nn.Module, x: Tensor) -> Tensor:
    bn = module.bn
    return F.batch_norm(module.conv(x), bn.running_mean, bn.running_var, bn.weight, bn.bias, False, 0.1, 1e-3)


def residual(module: nn.Module, x: Tensor) -> Tensor:
    return F.relu(module.bn2(module.conv2(F.relu(module.bn1(module.conv1(x))))) + x)


def shared(module: nn.Module, x: Tensor) -> Tensor:
    return module.bn(module.conv(module.bn(module.conv(x))))


def tied(module: nn.Module, x: Tensor) -> Tensor:
    return module.bn(module.conv(x)) + F.conv2d(x, module.conv.weight)


def without_gradient(module: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        y = module.bn(module.conv(x))
    return F.relu(y)


def in_place_of_a_view(module: nn.Module, x: Tensor) -> Tensor:
    y = module.bn(module.conv(x))
    y.view(-1).relu_()
    return y


def in_place_then_read(module: nn.Module, x: Tensor) -> Tensor:
    y = module.bn(module.conv(x))
    F.relu_(y)
    return y + 1


def read_before_in_place(module: nn.Module, x: Tensor) -> Tensor:
    """The convolution is read twice: the fold must not let relu_ overwrite it."""
    y = module.conv(x)
    z = F.relu_(module.bn(y).add_(1))
    return z.flatten(1) + torch.sigmoid(y).flatten(1)


def two_readers(module: nn.Module, x: Tensor) -> Tensor:
    y = module.conv(x)
    return module.bn(y) + torch.sigmoid(y)


def dense_block(module: nn.Module, x: Tensor) -> Tensor:
    return module.conv2(module.bn(torch.cat([module.conv1(x), module.conv1b(x)], 1)))


def split(module: nn.Module, x: Tensor) -> Tensor:
    a, b = module.bn(module.conv(x)).chunk(2, 1)
    return a * torch.sigmoid(b)


def max_feature_map(module: nn.Module, x: Tensor) -> Tensor:
    return module.bn(torch.maximum(*module.conv(x).chunk(2, 1)))


def masked(module: nn.Module, x: Tensor) -> Tensor:
    return module.bn(torch.where(x[:, :1, 1:-1, 1:-1] > 0, module.conv(x), module.conv(x.neg())))


def masked_in_another_type(module: nn.Module, x: Tensor) -> Tensor:
    y = module.conv(x)
    return module.bn(torch.where(x[:, :1, 1:-1, 1:-1] > 0, y, y.double()).float())


def picked_and_scattered(module: nn.Module, x: Tensor) -> Tensor:
    y = module.conv(x)
    order = x.mean(1, keepdim=True)[:, :, 1:-1, 1:-1].argsort(3).expand(-1, 8, -1, -1)
    return module.bn(y.gather(3, order).scatter(3, order, y).repeat(1, 1, 2, 1))


def pooled(module: nn.Module, x: Tensor) -> Tensor:
    y = F.adaptive_avg_pool2d(module.conv(x), 1).flatten(1)
    return module.linear(module.bn(y))


def written_out(module: nn.Module, x: Tensor) -> Tensor:
    y = module.conv(x)
    return (y - module.mean.view(1, -1, 1, 1)) * module.scale.view(1, -1, 1, 1) + 0.25


def with_buffers() -> nn.Module:
    made_ = Made(written_out, conv=nn.Conv2d(3, 8, 3))
    made_.register_buffer("mean", torch.randn(8))
    made_.register_buffer("scale", torch.rand(8) + 0.5)
    return made_.eval()


def channels_last(module: nn.Module, x: Tensor) -> Tensor:
    return module.bn(module.linear(x).transpose(1, 2))


def counted(module: nn.Module, x: Tensor) -> Tensor:
    return module.bn(module.conv(x)) * x.shape[0]


def training_mode() -> nn.Module:
    module = trained(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)))
    module[1].train()
    return module


def weight_normed() -> nn.Module:
    conv = torch.nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3))
    return trained(nn.Sequential(conv, nn.BatchNorm2d(8)))


def computed_weight(module: nn.Module, x: Tensor) -> Tensor:
    weight = module.scale.weight
    return module.bn(F.conv2d(x, weight / weight.flatten(1).norm(dim=1).view(-1, 1, 1, 1) + 0.1))


def weight_from_input(module: nn.Module, x: Tensor) -> Tensor:
    return module.bn(F.conv2d(x, module.conv.weight * x.mean()))


def pre_activation(module: nn.Module, x: Tensor) -> Tensor:
    return module.conv2(F.relu(module.bn(module.conv1(x))))


class Held(nn.Module):
    """A module with a weight, a convolution and a BatchNorm, and a function of them."""

    def __init__(self, run: Callable[..., Tensor], *shape: int, buffer: bool = False) -> None:
        super().__init__()
        self.conv, self.bn, self._run = nn.Conv2d(3, 4, 3), BN2(4), run
        self.second = nn.Conv2d(4, 4, 1)
        self.register_buffer("count", torch.ones(1))
        if buffer:
            self.register_buffer("w", torch.randn(*shape))
        else:
            self.w = nn.Parameter(torch.randn(*shape))

    def forward(self, x: Tensor) -> Tensor:
        return self._run(self, x)


def held(run: Callable[..., Tensor], *shape: int, buffer: bool = False) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        torch.manual_seed(3)
        return trained(Held(run, *shape or (4, 3, 3, 3), buffer=buffer))

    return build


def masked_weight(module: nn.Module, x: Tensor) -> Tensor:
    w = module.w * 1.0
    w[0] = 0
    return module.bn(F.conv2d(x, w))


def scaled_through_a_view(module: nn.Module, x: Tensor) -> Tensor:
    w = module.w.clone()
    w.view(-1).mul_(3)
    return module.bn(F.conv2d(x, w))


def chained_in_place(module: nn.Module, x: Tensor) -> Tensor:
    y = module.bn(module.conv(x))
    y[:, :2].add_(1.0).mul_(3.0)
    return module.second(y)


def rounded_weight(module: nn.Module, x: Tensor) -> Tensor:
    weight = torch.arange(0.05, 10.8, 0.1).reshape(4, 3, 3, 3)
    return module.bn(F.conv2d(x, torch.round((module.w * 0 + weight) * 10) / 10))


def weight_of_bits(module: nn.Module, x: Tensor) -> Tensor:
    bits = (module.w * 2).view(torch.int32) & torch.tensor(-65536, dtype=torch.int32)
    return module.bn(F.conv2d(x, bits.view(torch.float32)))


def overwritten_mean(module: nn.Module, x: Tensor) -> Tensor:
    mean = module.bn.running_mean.clone()
    mean[0] = 100.0
    return F.batch_norm(module.conv(x), mean, module.bn.running_var, module.bn.weight, module.bn.bias)


def type_as_then_add(module: nn.Module, x: Tensor) -> Tensor:
    y = module.conv(x)
    z = module.bn(y)
    w = y.type_as(x).add_(1)
    return torch.cat([module.second(w), z], 1)


def true_added(module: nn.Module, x: Tensor) -> Tensor:
    return module.bn(module.conv(x) + True)


def split_weight(module: nn.Module, x: Tensor) -> Tensor:
    a, b = module.w.split([1, 3])
    return module.bn(torch.cat([F.conv2d(x, a), F.conv2d(x, b)], 1))


def empty_joined(module: nn.Module, x: Tensor) -> Tensor:
    return module.bn(torch.cat([module.conv(x), torch.zeros(0)], 1))


def plainly_padded(module: nn.Module, x: Tensor) -> Tensor:
    return module.second(F.pad(x[:, :1].relu() * 2.0 + 1.0, (1, 1, 1, 1)).expand(-1, 4, -1, -1))


@torch.no_grad()
def no_grad_returned(module: nn.Module, x: Tensor) -> Tensor:
    return module.bn(module.conv(x))


def conditional(module: nn.Module, x: Tensor) -> Tensor:
    y = module.bn(module.conv(x))
    return torch.cond(x.sum() > 1e6, lambda a: a + 1, lambda a: a * 1, (y,))


def conv_bn(conv: nn.Module, bn: nn.Module) -> Callable[[], nn.Module]:
    return seq(conv, bn, nn.ReLU())


BN2, BN1, BN3 = nn.BatchNorm2d, nn.BatchNorm1d, nn.BatchNorm3d


def into_recurrent(made_: nn.Module, x: Tensor) -> Tensor:
    """Features come last in a recurrent network, second in a BatchNorm."""
    return made_.net(made_.bn(x.relu().transpose(1, 2)).transpose(1, 2).contiguous())[0]


def rows_of_time() -> tuple[Tensor]:
    return (torch.randn(4, 5, 6),)


KINDS: dict[str, Kind] = {
    "conv1d": Kind(conv_bn(nn.Conv1d(3, 8, 3), BN1(8)), lambda: (torch.randn(2, 3, 16),), 1),
    "conv2d": Kind(conv_bn(nn.Conv2d(3, 8, 3, padding=1), BN2(8)), image(), 1),
    "conv2d_no_bias": Kind(conv_bn(nn.Conv2d(3, 8, 3, bias=False), BN2(8)), image(), 1),
    "conv2d_same": Kind(conv_bn(nn.Conv2d(3, 8, 4, padding="same"), BN2(8)), image(), 1),
    "conv3d": Kind(conv_bn(nn.Conv3d(3, 8, 3), BN3(8)), lambda: (torch.randn(2, 3, 5, 5, 5),), 1),
    "grouped": Kind(conv_bn(nn.Conv2d(4, 8, 3, groups=2, stride=2), BN2(8)), image(4), 1),
    "depthwise": Kind(conv_bn(nn.Conv2d(4, 4, 3, groups=4, padding=1), BN2(4)), image(4), 1),
    "transposed": Kind(conv_bn(nn.ConvTranspose2d(3, 8, 3, stride=2), BN2(8)), image(), 1),
    "transposed_grouped": Kind(
        conv_bn(nn.ConvTranspose2d(4, 8, 3, groups=2, stride=2, output_padding=1), BN2(8)), image(4), 1
    ),
    "transposed_1d": Kind(conv_bn(nn.ConvTranspose1d(3, 8, 3), BN1(8)), lambda: (torch.randn(2, 3, 9),), 1),
    "linear": Kind(conv_bn(nn.Linear(6, 8), BN1(8)), row(), 1),
    "linear_no_bias": Kind(conv_bn(nn.Linear(6, 8, bias=False), BN1(8)), row(), 1),
    "linear_3d": Kind(
        made(channels_last, lambda: {"linear": nn.Linear(6, 8), "bn": BN1(8)}), lambda: (torch.randn(2, 5, 6),), 1
    ),
    "bn_before_linear": Kind(seq(BN1(6), nn.Linear(6, 8)), row(), 1),
    "bn_before_linear_no_bias": Kind(seq(BN1(6), nn.Linear(6, 8, bias=False)), row(), 1),
    "bn_before_conv": Kind(seq(BN2(3), nn.Conv2d(3, 8, 3)), image(), 1),
    "bn_before_padded_conv": Kind(
        seq(nn.Conv2d(3, 3, 1), nn.Sigmoid(), BN2(3), nn.Conv2d(3, 8, 3, padding=1)), image(), 0, ("padding",)
    ),
    "normalized_before_padded_conv": Kind(seq(BN2(3), nn.Conv2d(3, 8, 3, padding=1)), image(), 1),
    "bn_alone": Kind(seq(BN2(3)), image(), 0, ("graph-input",)),
    "two_batch_norms": Kind(seq(nn.Conv2d(3, 8, 3), BN2(8), BN2(8)), image(), 2),
    "no_affine": Kind(conv_bn(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, affine=False)), image(), 1),
    "no_statistics": Kind(
        conv_bn(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, track_running_stats=False)), image(), 0, ("training-mode",)
    ),
    "training_mode": Kind(training_mode, image(), 0, ("training-mode",)),
    "functional": Kind(made(functional, lambda: {"conv": nn.Conv2d(3, 8, 3), "bn": BN2(8)}), image(), 1),
    "residual": Kind(
        made(
            residual,
            lambda: {"conv1": nn.Conv2d(4, 4, 3, padding=1), "bn1": BN2(4), "conv2": nn.Conv2d(4, 4, 1), "bn2": BN2(4)},
        ),
        image(4),
        2,
    ),
    "shared_module": Kind(made(shared, lambda: {"conv": nn.Conv2d(4, 4, 3, padding=1), "bn": BN2(4)}), image(4), 2),
    "tied_weight": Kind(made(tied, lambda: {"conv": nn.Conv2d(3, 8, 3), "bn": BN2(8)}), image(), 1),
    "two_readers": Kind(
        made(two_readers, lambda: {"conv": nn.Conv2d(3, 8, 3), "bn": BN2(8)}), image(), 0, ("consumers",)
    ),
    "relu_between": Kind(seq(nn.Conv2d(3, 8, 3), nn.ReLU(), BN2(8)), image(), 0, ("nonlinear",)),
    "relu_between_then_conv": Kind(seq(nn.Conv2d(3, 8, 3), nn.ReLU(), BN2(8), nn.Conv2d(8, 4, 1)), image(), 1),
    "pre_activation": Kind(
        made(pre_activation, lambda: {"conv1": nn.Conv2d(3, 4, 3), "bn": BN2(4), "conv2": nn.Conv2d(4, 4, 3)}),
        image(),
        1,
    ),
    "dense_block": Kind(
        made(
            dense_block,
            lambda: {
                "conv1": nn.Conv2d(3, 4, 1),
                "conv1b": nn.Conv2d(3, 4, 1),
                "bn": BN2(8),
                "conv2": nn.Conv2d(8, 4, 3, padding=1),
            },
        ),
        image(),
        1,
    ),
    "split": Kind(made(split, lambda: {"conv": nn.Conv2d(3, 8, 3), "bn": BN2(8)}), image(), 1),
    "pooled": Kind(
        made(pooled, lambda: {"conv": nn.Conv2d(3, 8, 3), "bn": BN1(8), "linear": nn.Linear(8, 5)}), image(), 1
    ),
    "max_pool": Kind(lambda: positive(nn.Sequential(nn.Conv2d(3, 8, 3), nn.MaxPool2d(2), BN2(8))), image(), 1),
    "max_pool_negative": Kind(seq(nn.Conv2d(3, 8, 3), nn.MaxPool2d(2), BN2(8)), image(), 0, ("nonlinear",)),
    "max_feature_map": Kind(lambda: positive(Made(max_feature_map, conv=nn.Conv2d(3, 16, 3), bn=BN2(8))), image(), 1),
    "max_feature_map_negative": Kind(
        made(max_feature_map, lambda: {"conv": nn.Conv2d(3, 16, 3), "bn": BN2(8)}), image(), 0, ("nonlinear",)
    ),
    "masked": Kind(made(masked, lambda: {"conv": nn.Conv2d(3, 8, 3), "bn": BN2(8)}), image(), 1),
    "masked_in_another_type": Kind(
        made(masked_in_another_type, lambda: {"conv": nn.Conv2d(3, 8, 3), "bn": BN2(8)}),
        image(),
        0,
        ("unsupported-dtype",),
    ),
    "picked_and_scattered": Kind(
        made(picked_and_scattered, lambda: {"conv": nn.Conv2d(3, 8, 3), "bn": BN2(8)}), image(), 1
    ),
    "average_pool": Kind(seq(nn.Conv2d(3, 8, 3), nn.AvgPool2d(2), BN2(8)), image(), 1),
    "average_pool_padded": Kind(seq(nn.Conv2d(3, 8, 3), nn.AvgPool2d(2, padding=1), BN2(8)), image(), 0, ("padding",)),
    "upsample": Kind(seq(nn.Conv2d(3, 8, 3), nn.Upsample(scale_factor=2, mode="bilinear"), BN2(8)), image(), 1),
    "pixel_shuffle": Kind(seq(nn.Conv2d(3, 8, 3), nn.PixelShuffle(2), BN2(2)), image(), 1),
    "new_channels": Kind(
        made(
            lambda m, x: m.last(F.pad(m.bn(m.conv(x).sigmoid()), (0, 0, 0, 0, 1, 2))),
            lambda: {"conv": nn.Conv2d(3, 6, 1), "bn": BN2(6), "last": nn.Conv2d(9, 4, 1)},
        ),
        image(),
        1,
    ),
    "reflection_padding": Kind(seq(nn.ReflectionPad2d(1), BN2(3), nn.Conv2d(3, 8, 3)), image(), 1),
    "circular_padding": Kind(conv_bn(nn.Conv2d(3, 8, 3, padding=1, padding_mode="circular"), BN2(8)), image(), 1),
    "dropout": Kind(seq(nn.Linear(6, 8), nn.Dropout(0.5), BN1(8)), row(), 1),
    "flattened": Kind(seq(nn.Conv2d(3, 4, 3), BN2(4), nn.Flatten(), nn.Linear(144, 5)), image(), 1),
    "bn_before_flatten": Kind(seq(nn.ReLU(), BN2(3), nn.Flatten(), nn.Linear(192, 5)), image(), 1),
    "written_out": Kind(with_buffers, image(), 1),
    "relu6": Kind(seq(nn.Conv2d(3, 8, 3), BN2(8), nn.ReLU6()), image(), 1),
    "prelu": Kind(seq(nn.Conv2d(3, 8, 3), BN2(8), nn.PReLU(8)), image(), 1),
    "weight_norm": Kind(weight_normed, image(), 1),
    "computed_weight": Kind(made(computed_weight, lambda: {"scale": nn.Conv2d(3, 8, 3), "bn": BN2(8)}), image(), 1),
    "weight_from_input": Kind(
        made(weight_from_input, lambda: {"conv": nn.Conv2d(3, 8, 3), "bn": BN2(8)}), image(), 0, ("dynamic-weights",)
    ),
    "no_grad": Kind(made(without_gradient, lambda: {"conv": nn.Conv2d(3, 8, 3), "bn": BN2(8)}), image(), 1),
    "in_place_relu": Kind(seq(nn.Conv2d(3, 8, 3), BN2(8), nn.ReLU(inplace=True)), image(), 1),
    "in_place_then_read": Kind(
        made(in_place_then_read, lambda: {"conv": nn.Conv2d(3, 8, 3), "bn": BN2(8)}), image(), 1
    ),
    "in_place_of_a_view": Kind(
        made(in_place_of_a_view, lambda: {"conv": nn.Conv2d(3, 8, 3), "bn": BN2(8)}), image(), 1
    ),
    "read_before_in_place": Kind(
        made(read_before_in_place, lambda: {"conv": nn.Conv2d(3, 8, 3), "bn": BN2(8)}), image(), 0, ("consumers",)
    ),
    "masked_weight": Kind(held(masked_weight), image(), 0, ("dynamic-weights",), decomposed=1),
    "masked_buffer": Kind(held(masked_weight, 4, 3, 3, 3, buffer=True), image(), 0, ("dynamic-weights",), decomposed=1),
    "scaled_through_a_view": Kind(held(scaled_through_a_view), image(), 0, ("dynamic-weights",), decomposed=1),
    "overwritten_mean": Kind(held(overwritten_mean), image(), 0, ("dynamic-statistics",), decomposed=1),
    "chained_in_place": Kind(held(chained_in_place), image(), 1),
    "rounded_weight": Kind(held(rounded_weight), image(), 1),
    "weight_of_bits": Kind(held(weight_of_bits), image(), 0, ("dynamic-weights",), decomposed=1),
    "type_as_then_add": Kind(held(type_as_then_add), image(), 0, ("control-flow",), decomposed=1),
    "true_added": Kind(held(true_added), image(), 1),
    "split_weight": Kind(held(split_weight), image(), 1),
    "empty_joined": Kind(held(empty_joined), image(), 0, ("unknown-op",)),
    "plainly_padded": Kind(held(plainly_padded), image(), 0),
    "no_grad_returned": Kind(held(no_grad_returned), image(), 1),
    "conditional": Kind(held(conditional), image(), 1),
    "reshaped_as_another": Kind(
        made(
            lambda m, x: m.bn(m.conv(x).flatten(2)).reshape_as(m.conv(x)).relu(),
            lambda: {"conv": nn.Conv2d(3, 8, 3), "bn": BN1(8)},
        ),
        image(),
        1,
    ),
    "expanded_as_another": Kind(
        made(
            lambda m, x: m.bn(m.conv(x)).expand_as(x.mean(1, keepdim=True).expand(2, 8, 8, 8)) * 2.0,
            lambda: {"conv": nn.Conv2d(3, 8, 1), "bn": BN2(8)},
        ),
        image(),
        1,
    ),
    "lstm_behind": Kind(
        made(into_recurrent, lambda: {"bn": BN1(6), "net": nn.LSTM(6, 5, 2, bidirectional=True, batch_first=True)}),
        rows_of_time,
        1,
        decomposed=1,
    ),
    "gru_behind": Kind(
        made(into_recurrent, lambda: {"bn": BN1(6), "net": nn.GRU(6, 5, batch_first=True)}),
        rows_of_time,
        1,
        decomposed=1,
    ),
    "rnn_behind": Kind(
        made(into_recurrent, lambda: {"bn": BN1(6), "net": nn.RNN(6, 5, batch_first=True)}),
        rows_of_time,
        1,
        decomposed=1,
    ),
    "rnn_without_bias": Kind(
        made(into_recurrent, lambda: {"bn": BN1(6), "net": nn.RNN(6, 5, bias=False, batch_first=True)}),
        rows_of_time,
        0,
        ("nonlinear",),
        decomposed=0,
    ),
    "einsum": Kind(
        made(
            lambda m, x: m.bn(torch.einsum("bchw,oc->bohw", x, m.linear.weight)),
            lambda: {"linear": nn.Linear(3, 8), "bn": BN2(8)},
        ),
        image(),
        1,
    ),
    "einsum_of_two_values": Kind(
        made(
            lambda m, x: m.bn(torch.einsum("bchw,bdhw->bcd", m.conv(x), m.conv(x))),
            lambda: {"conv": nn.Conv2d(3, 8, 1), "bn": BN1(8)},
        ),
        image(),
        0,
        ("dynamic-weights",),
    ),
    "std_behind": Kind(
        made(lambda m, x: m.fc(m.bn(x.relu()).std((2, 3))), lambda: {"bn": BN2(3), "fc": nn.Linear(3, 4)}),
        image(),
        1,
    ),
    "var_behind": Kind(
        made(
            lambda m, x: m.fc(m.bn(x.relu()).var((2, 3), correction=0)), lambda: {"bn": BN2(3), "fc": nn.Linear(3, 4)}
        ),
        image(),
        1,
    ),
    "std_of_channels": Kind(
        made(lambda m, x: m.bn(x.relu()).std(1), lambda: {"bn": BN2(3)}), image(), 0, ("channel-axis",)
    ),
    "bn_behind_std": Kind(
        made(lambda m, x: m.bn(m.conv(x).std((2, 3))), lambda: {"conv": nn.Conv2d(3, 8, 1), "bn": BN1(8)}),
        image(),
        0,
        ("nonlinear",),
        decomposed=0,
    ),
    "layer_norm": Kind(seq(nn.LayerNorm(6), BN1(6), nn.Sigmoid()), row(), 1),
    "layer_norm_of_an_image": Kind(seq(nn.LayerNorm([3, 8, 8]), BN2(3), nn.Sigmoid()), image(), 1),
    "layer_norm_of_rows": Kind(seq(nn.LayerNorm(8), BN2(3), nn.Sigmoid()), image(), 0, ("channel-axis",)),
    "layer_norm_without_scale": Kind(seq(nn.LayerNorm(6, elementwise_affine=False), BN1(6)), row(), 1),
    "group_norm": Kind(seq(nn.GroupNorm(2, 6), BN2(6), nn.Sigmoid()), image(6), 1),
    "group_norm_without_scale": Kind(seq(nn.GroupNorm(2, 6, affine=False), BN2(6)), image(6), 1),
    "before_a_group_norm": Kind(seq(nn.ReLU(), BN2(6), nn.GroupNorm(2, 6)), image(6), 0, ("nonlinear",)),
    "instance_norm": Kind(seq(nn.InstanceNorm2d(6, affine=True), BN2(6)), image(6), 1),
    "instance_norm_without_scale": Kind(seq(nn.InstanceNorm2d(6), BN2(6)), image(6), 1),
    "instance_norm_of_running_statistics": Kind(
        seq(nn.InstanceNorm2d(6, track_running_stats=True), BN2(6)), image(6), 0, ("unknown-op",)
    ),
    "rms_norm": Kind(seq(nn.RMSNorm(6), BN1(6), nn.Linear(6, 3)), row(), 1, decomposed=1),
    "chosen_by_a_mask": Kind(
        made(
            lambda m, x: m.bn(torch.where(m.conv(x) > 0, m.conv(x), 0.5)),
            lambda: {"conv": nn.Conv2d(3, 8, 1), "bn": BN2(8)},
        ),
        image(),
        1,
    ),
    "channels_picked": Kind(
        made(
            lambda m, x: m.bn(
                m.conv(x).movedim(1, -1)[..., :6].movedim(-1, 1).narrow(1, 1, 5).flip(1)[:, [4, 0, 2, 1]]
            ),
            lambda: {"conv": nn.Conv2d(3, 8, 1), "bn": BN2(4)},
        ),
        image(),
        1,
    ),
    "dynamic_batch": Kind(
        seq(nn.Conv2d(3, 8, 3), BN2(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 5)), image(), 1, dynamic=True
    ),
    "float64": Kind(half(torch.float64), lambda: (torch.randn(2, 3, 8, 8, dtype=torch.float64),), 1),
    "float16": Kind(half(torch.float16), lambda: (torch.randn(2, 3, 8, 8, dtype=torch.float16),), 1),
    "bfloat16": Kind(half(torch.bfloat16), lambda: (torch.randn(2, 3, 8, 8, dtype=torch.bfloat16),), 1),
    "size_arithmetic": Kind(
        made(counted, lambda: {"conv": nn.Conv2d(3, 8, 3), "bn": BN2(8)}), image(), 1, dynamic=True
    ),
}
"""Every kind by its name."""
