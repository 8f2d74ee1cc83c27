"""Build an architecture by the name that its library gives it."""

import networks


def own(name, size):
    """Return a network of `networks.py`."""
    makers = {
        "recurrent_head": networks.RecurrentHead, "pointnet2": networks.PointNet2, "dgcnn": networks.DGCNN,
        "deepspeech2": networks.DeepSpeech2, "deepspeech2_lstm": lambda: networks.DeepSpeech2("LSTM"),
        "tdnnf": networks.TDNNF, "text_cnn": networks.DenseNet1d, "crnn": networks.CRNN,
    }  # fmt: skip
    return makers.get(name, getattr(networks, name, None))()


def timm(name, size):
    """Return a network of timm."""
    import timm as library

    return library.create_model(name, num_classes=10)


def pytorchcv(name, size):
    """Return a network of pytorchcv."""
    import importlib

    from pytorchcv.model_provider import _models, get_model

    options = {"in_size": size} if "cityscapes" in name else {}
    if name in _models:
        return get_model(name, pretrained=False, **options)
    return getattr(importlib.import_module("pytorchcv.models." + name.partition("_")[0]), name)(**options)


def smp(name, size):
    """Return `Architecture-encoder` of segmentation-models-pytorch."""
    import segmentation_models_pytorch as library

    architecture, encoder = name.split("-", 1)
    return getattr(library, architecture)(encoder, encoder_weights=None, classes=3)


def monai(name, size):
    """Return a network of monai, small."""
    from monai.networks import nets

    makers = {
        "densenet121": lambda: nets.DenseNet121(2, 3, 4),
        "attention_unet": lambda: nets.AttentionUnet(2, 3, 2, (8, 16, 32), (2, 2)),
        "unet": lambda: nets.UNet(2, 3, 2, (8, 16, 32), (2, 2), num_res_units=2, norm="batch"),
        "basic_unet": lambda: nets.BasicUNet(2, 3, 2, (8, 8, 16, 32, 64, 8), norm="batch"),
        "segresnet": lambda: nets.SegResNet(2, 8, 3, 2, norm="batch"),
        "resnet10": lambda: nets.resnet10(spatial_dims=2, n_input_channels=3, num_classes=4),
        "dynunet": lambda: nets.DynUNet(2, 3, 2, (3, 3, 3), (1, 2, 2), (2, 2), filters=(8, 16, 32), norm_name="batch"),
        "efficientnet": lambda: nets.EfficientNetBN("efficientnet-b0", False, spatial_dims=2, num_classes=4),
        "highresnet": lambda: nets.HighResNet(3, 1, 2),
        "vnet": lambda: nets.VNet(3, 1, 2),
    }
    return makers[name]()


def ultralytics(name, size):
    """Return a network of ultralytics in the form that it exports."""
    from ultralytics.nn import tasks

    network = tasks.DetectionModel(name, ch=3, nc=5, verbose=False).eval()
    network.model[-1].export, network.model[-1].format = True, "onnx"
    return network


def kornia(name, size):
    """Return a descriptor or detector of kornia."""
    from kornia import feature

    if name == "XFeatModel":
        return feature.xfeat.XFeatModel()
    return getattr(feature, name)(pretrained=False)


def torchxrayvision(name, size):
    """Return the DenseNet of torchxrayvision, without weights."""
    from torchxrayvision.models import DenseNet

    return DenseNet(num_classes=5, in_channels=1)


def speechbrain(name, size):
    """Return a network of speechbrain, narrow."""
    from importlib import import_module

    models = "speechbrain.lobes.models."
    makers = {
        "ecapa_tdnn": lambda: import_module(models + "ECAPA_TDNN").ECAPA_TDNN(
            80, lin_neurons=64, channels=[128, 128, 128, 128, 384], attention_channels=32
        ),
        "xvector": lambda: import_module(models + "Xvector").Xvector(
            in_channels=40, lin_neurons=64, tdnn_channels=[64, 64, 64, 64, 128]
        ),
        "resnet": lambda: import_module(models + "ResNet").ResNet(
            input_size=40, channels=[16, 16, 32, 32], lin_neurons=64, block_sizes=[1, 1, 1, 1]
        ),
        "crdnn": lambda: import_module(models + "CRDNN").CRDNN(input_shape=(2, 40, 40), rnn_neurons=32, dnn_neurons=32),
    }
    return makers[name]()


def transformers(name, size):
    """Return a network of transformers with few and narrow layers."""
    import transformers as library

    small = {"d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "num_queries": 20, "num_labels": 5}
    resnet = library.ResNetConfig(
        embedding_size=16, hidden_sizes=[16, 32, 64, 64], depths=[1, 1, 1, 1], out_features=["stage4"]
    )
    if name == "detr":
        config = library.DetrConfig(
            backbone_config=resnet, use_timm_backbone=False, encoder_attention_heads=4, decoder_attention_heads=4,
            encoder_ffn_dim=128, decoder_ffn_dim=128, **small,
        )  # fmt: skip
        return library.DetrForObjectDetection(config)
    if name == "rt_detr":
        config = library.RTDetrConfig(
            encoder_hidden_dim=64, encoder_in_channels=[32, 64, 64], encoder_attention_heads=4,
            decoder_attention_heads=4, encoder_ffn_dim=128, decoder_ffn_dim=128, decoder_in_channels=[64, 64, 64],
            num_denoising=0, anchor_image_size=[size, size],
            backbone_config=library.RTDetrResNetConfig(
                embedding_size=16, hidden_sizes=[16, 32, 64, 64], depths=[1, 1, 1, 1], layer_type="basic",
                out_features=["stage2", "stage3", "stage4"],
            ), **small,
        )  # fmt: skip
        return library.RTDetrForObjectDetection(config)
    if name == "wav2vec2_conformer":
        config = library.Wav2Vec2ConformerConfig(
            hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128, conv_dim=(32,) * 7,
            num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4, vocab_size=32,
        )  # fmt: skip
        return library.Wav2Vec2ConformerForCTC(config)
    makers = {
        "resnet": lambda: library.ResNetForImageClassification(resnet),
        "regnet": lambda: library.RegNetForImageClassification(
            library.RegNetConfig(embedding_size=16, hidden_sizes=[16, 32, 64, 64], depths=[1, 1, 2, 1], groups_width=8)
        ),
        "mobilenet_v2": lambda: library.MobileNetV2ForImageClassification(
            library.MobileNetV2Config(depth_multiplier=0.5)
        ),
        "levit": lambda: library.LevitForImageClassification(library.LevitConfig()),
        "segformer": lambda: library.SegformerForSemanticSegmentation(
            library.SegformerConfig(depths=[1, 1, 1, 1], decoder_hidden_size=64)
        ),
        "mobilevit": lambda: library.MobileViTForImageClassification(
            library.MobileViTConfig(hidden_sizes=[32, 48, 64], neck_hidden_sizes=[8, 16, 24, 32, 48, 64, 128])
        ),
        "swiftformer": lambda: library.SwiftFormerForImageClassification(
            library.SwiftFormerConfig(depths=[1, 1, 1, 1])
        ),
        "textnet": lambda: library.TextNetForImageClassification(library.TextNetConfig()),
        "patchtst": lambda: library.PatchTSTForPrediction(
            library.PatchTSTConfig(num_input_channels=3, context_length=64, patch_length=8, patch_stride=8, d_model=32)
        ),
    }
    return makers[name]()
