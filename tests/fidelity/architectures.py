"""The published architectures that `fold` is tried on: plain data.

A name is what its library calls the network (`libraries.py` builds it); then the shape of one sample of each
input. A number is the width of a square RGB image.
"""

ARCHITECTURES = {
    "own": {
        "recurrent_head": (7, 20), "dcgan_discriminator": 64, "pointnet2": (3, 128), "dgcnn": (3, 64),
        "deepspeech2": (1, 40, 31), "deepspeech2_lstm": (1, 40, 31), "tdnnf": (40, 50),
        "dcgan_generator": (100, 1, 1), "text_cnn": "tokens", "crnn": (1, 32, 64),
    },
    "timm": {
        "levit_128s": 224, "densenet121": 64, "dpn68": 64, "ghostnetv3_100": 64, "mobileone_s0": 64, "repvgg_a0": 64,
        "repvit_m0_9": 64, "fastvit_t8": 64, "resnet18": 64, "resnet50": 64, "mobilenetv2_050": 64,
        "mobilenetv3_small_050": 64, "efficientnet_b0": 64,
        "resnext26ts": 64, "seresnet18": 64, "resnet18d": 64, "resnet26t": 64, "skresnet18": 64, "ecaresnet26t": 64,
        "regnetx_002": 64, "regnety_002": 64, "mnasnet_small": 64, "mixnet_s": 64, "lcnet_050": 64, "hardcorenas_a": 64,
        "tf_efficientnet_lite0": 64, "tf_mobilenetv3_small_minimal_100": 64, "ghostnet_050": 64, "repghostnet_050": 64,
        "hgnetv2_b0": 64, "vovnet39a": 64, "dla46_c": 64, "res2net50_14w_8s": 64, "cspdarknet53": 64, "cspresnet50": 64,
        "darknet17": 64, "selecsls42": 64, "hrnet_w18_small": 64, "xception41": 64, "inception_v3": 96,
        "mobilevit_xxs": 64, "mobilevitv2_050": 64, "efficientvit_b0": 64, "efficientvit_m0": 224,
        "edgenext_xx_small": 64,
        "efficientformer_l1": 224, "efficientformerv2_s0": 224, "fastvit_s12": 64, "repvit_m1_0": 64,
        "tiny_vit_5m_224": 224,
        "starnet_s1": 64, "mobilenetv4_conv_small": 64, "mobilenetv1_100": 64, "tinynet_e": 64, "semnasnet_050": 64,
        "spnasnet_100": 64, "fbnetc_100": 64, "resnetv2_18": 64, "legacy_seresnet18": 64, "nf_resnet26": 64,
        "botnet26t_256": 256, "coatnet_pico_rw_224": 224, "convmixer_768_32": 64, "levit_conv_128s": 224,
        "rdnet_tiny": 64, "shvit_s1": 224, "ese_vovnet19b_dw": 64, "rexnet_100": 64, "poolformer_s12": 64,
        "lambda_resnet26t": 256,
        "visformer_tiny": 224, "bat_resnext26ts": 256, "halonet26t": 256, "gernet_s": 64, "csatv2": 256,
        "mobilenet_edgetpu_v2_xs": 64,
    },
    "pytorchcv": {
        "octresnet10_ad2": 224, "densenet40_k12_cifar10": 32, "pyramidnet110_a48_cifar10": 32, "fishnet99": 224,
        "resattnet56": 224, "sinet_cityscapes": 128, "espnetv2_wd2": 224, "espcnet_cityscapes": 128,
        "shufflenetv2b_wd2": 224, "shufflenet_g3_wd4": 224, "squeezeresnet_v1_1": 224, "sqnxt23_w1": 224,
        "menet108_8x1_g3": 224,
        "igcv3_wd4": 224, "preresnet10": 224, "sepreresnet10": 224, "diaresnet10": 224, "bam_resnet18": 224,
        "cbam_resnet18": 224, "ibn_densenet121": 224, "peleenet": 224, "condensenet74_c8_g8": 224,
        "airnet50_1x64d_r16": 224,
        "channelnet": 224, "proxylessnas_cpu": 224, "dicenet_wd5": 224, "hardnet39ds": 224, "resnestabc14": 224,
        "bninception": 224,
        "resnet20_cifar10": 32, "preresnet20_cifar10": 32, "densenet40_k12_bc_cifar10": 32, "wrn20_10_1bit_cifar10": 32,
        "ror3_56_cifar10": 32, "rir_cifar10": 32, "shakeshakeresnet20_2x16d_cifar10": 32, "nin_cifar10": 32,
        "fractalnet_cifar10": 32, "xdensenet40_2_k24_bc_cifar10": 32, "diapreresnet20_cifar10": 32,
        "fastscnn_cityscapes": 128, "cgnet_cityscapes": 128, "dabnet_cityscapes": 128, "fpenet_cityscapes": 128,
        "lednet_cityscapes": 128, "esnet_cityscapes": 128, "edanet_cityscapes": 128, "enet_cityscapes": 128,
        "erfnet_cityscapes": 128, "linknet_cityscapes": 128, "sqnet_cityscapes": 128, "unet_cityscapes": 128,
        "ctxnet_cityscapes": 128,
        "lwopenpose2d_mobilenet_cmupan_coco": 128, "simplepose_resnet18_coco": (3,
        256, 192),
        "centernet_resnet18_coco": 128,             },
    "speechbrain": {
        "ecapa_tdnn": (80, 80), "xvector": (64, 40), "resnet": (64, 40), "crdnn": (40, 40),
    },
    "transformers": {
        "detr": 64, "rt_detr": 64, "wav2vec2_conformer": (1600,), "resnet": 64, "regnet": 64, "mobilenet_v2": 64,
        "levit": 224, "segformer": 64, "mobilevit": 64, "swiftformer": 64, "textnet": 64, "patchtst": (64, 3),
    },
    "smp": {
        "Unet-tu-mobilenetv3_small_050": 64, "UnetPlusPlus-tu-resnet18": 64, "DeepLabV3Plus-tu-resnet18": 64,
        "FPN-tu-resnet18": 64, "Linknet-tu-mobilenetv2_050": 64, "PSPNet-tu-resnet18": 96, "PAN-tu-resnet18": 128,
        "MAnet-tu-resnet18": 64, "Unet-tu-efficientnet_b0": 64, "UPerNet-tu-resnet18": 192,
    },
    "monai": {
        "densenet121": 64, "attention_unet": 64, "unet": 64, "basic_unet": 64, "segresnet": 64, "resnet10": 64,
        "dynunet": 64, "efficientnet": 64, "highresnet": (1, 16, 16, 16), "vnet": (1, 16, 16, 16),
    },
    "ultralytics": {
        "yolov8n.yaml": 64, "yolo11n.yaml": 64, "yolov5n.yaml": 64, "yolov10n.yaml": 64, "yolov9t.yaml": 64,
        "yolo12n.yaml": 64, "yolov6n.yaml": 64, "yolov3-tiny.yaml": 64,
    },
    "kornia": {
        "HardNet": (1, 32, 32), "HyNet": (1, 32, 32), "SOSNet": (1, 32, 32), "OriNet": (1, 32, 32), "XFeatModel": (1,
        64, 64),
    },
    "torchxrayvision": {"densenet": (1, 64, 64)},
}  # fmt: skip

UNFITTED = {
    "timm/levit_128s", "timm/starnet_s1", "timm/mobilenetv4_conv_small", "timm/mobilenetv1_100", "timm/tinynet_e",
    "timm/semnasnet_050", "timm/resnetv2_18", "timm/botnet26t_256", "timm/coatnet_pico_rw_224",
    "timm/convmixer_768_32", "timm/levit_conv_128s", "timm/ese_vovnet19b_dw", "timm/rexnet_100", "timm/poolformer_s12",
    "timm/visformer_tiny", "timm/bat_resnext26ts", "timm/halonet26t", "pytorchcv/shufflenet_g3_wd4",
    "pytorchcv/squeezeresnet_v1_1", "pytorchcv/sqnxt23_w1", "pytorchcv/menet108_8x1_g3", "pytorchcv/igcv3_wd4",
    "pytorchcv/sepreresnet10", "pytorchcv/bam_resnet18", "pytorchcv/peleenet", "pytorchcv/proxylessnas_cpu",
    "pytorchcv/dicenet_wd5", "pytorchcv/resnestabc14", "pytorchcv/bninception", "pytorchcv/resnet20_cifar10",
    "pytorchcv/densenet40_k12_bc_cifar10", "pytorchcv/shakeshakeresnet20_2x16d_cifar10", "pytorchcv/nin_cifar10",
    "pytorchcv/fractalnet_cifar10", "pytorchcv/diapreresnet20_cifar10", "pytorchcv/cgnet_cityscapes",
    "pytorchcv/dabnet_cityscapes", "pytorchcv/fpenet_cityscapes", "pytorchcv/esnet_cityscapes",
    "pytorchcv/edanet_cityscapes", "pytorchcv/enet_cityscapes", "pytorchcv/erfnet_cityscapes",
    "pytorchcv/linknet_cityscapes", "pytorchcv/ctxnet_cityscapes", "pytorchcv/lwopenpose2d_mobilenet_cmupan_coco",
    "pytorchcv/centernet_resnet18_coco", "transformers/resnet", "transformers/regnet", "transformers/mobilenet_v2",
    "transformers/segformer",
    "transformers/swiftformer", "transformers/textnet", "smp/UnetPlusPlus-tu-resnet18",
    "smp/DeepLabV3Plus-tu-resnet18", "smp/FPN-tu-resnet18", "smp/Unet-tu-efficientnet_b0", "smp/UPerNet-tu-resnet18",
    "monai/unet", "monai/basic_unet", "monai/segresnet", "monai/resnet10", "monai/dynunet", "monai/vnet",
    "ultralytics/yolov5n.yaml", "ultralytics/yolov10n.yaml", "ultralytics/yolov9t.yaml", "ultralytics/yolo12n.yaml",
}  # fmt: skip
"""Those whose statistics are drawn, not measured: the errors of LeViT grow from layer to layer where they fit."""
