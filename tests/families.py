"""The networks that stand for their families: one of every family of torchvision's, ten of timm's."""

TORCHVISION = [
    "resnet18",
    "resnext50_32x4d",
    "wide_resnet50_2",
    "regnet_y_400mf",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "efficientnet_b0",
    "efficientnet_v2_s",
    "convnext_tiny",
    "densenet121",
    "swin_t",
    "swin_v2_t",
    "vit_b_32",
]
TIMM = [
    "timm/vit_tiny_patch16_224",
    "timm/vit_base_patch32_clip_quickgelu_224",
    "timm/vit_base_patch16_siglip_224",
    "timm/vit_small_patch14_reg4_dinov2",
    "timm/eva02_tiny_patch14_224",
    "timm/convnext_atto",
    "timm/swinv2_tiny_window8_256",
    "timm/efficientnet_b0",
    "timm/coatnet_nano_rw_224",
    "timm/mobilenetv4_conv_small",
]
ALL = [*TORCHVISION, *TIMM]
# Those that take one size are made for a small one, where the size is not what is tested.
SMALL = {
    "timm/vit_tiny_patch16_224": 32,
    "timm/vit_base_patch32_clip_quickgelu_224": 64,
    "timm/vit_base_patch16_siglip_224": 32,
    "timm/vit_small_patch14_reg4_dinov2": 28,
    "timm/eva02_tiny_patch14_224": 28,
    "timm/swinv2_tiny_window8_256": 64,
    "timm/coatnet_nano_rw_224": 64,
}
