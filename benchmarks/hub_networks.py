"""Every backbone and task of KerasHub, in sizes that a laptop builds in seconds; weights are random.

    from hub_networks import BACKBONES, TASKS, build
    model = build("BertBackbone")

`BACKBONES` and `TASKS` name them; `inputs` draws what a model takes.
"""

import importlib
from typing import Any

TEXT: dict[str, Any] = {
    "vocabulary_size": 40,
    "num_layers": 2,
    "num_heads": 4,
    "hidden_dim": 16,
    "intermediate_dim": 32,
    "max_sequence_length": 16,
}
GROUPED: dict[str, Any] = {
    "vocabulary_size": 40,
    "num_layers": 2,
    "num_query_heads": 4,
    "num_key_value_heads": 2,
    "hidden_dim": 16,
    "intermediate_dim": 32,
}
EXPERTS: dict[str, Any] = {**GROUPED, "num_experts": 4, "top_k": 2}
QWEN3_5: dict[str, Any] = {
    **GROUPED,
    "num_layers": 2,
    "head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
    "partial_rotary_factor": 0.25,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 4,
    "linear_value_head_dim": 4,
    "linear_conv_kernel_dim": 4,
}
RESNET: dict[str, Any] = {
    "input_conv_filters": [64],
    "input_conv_kernel_sizes": [7],
    "stackwise_num_filters": [64, 16, 16],
    "stackwise_num_blocks": [2, 2, 2],
    "stackwise_num_strides": [1, 2, 2],
    "block_type": "bottleneck_block",
    "use_pre_activation": False,
}
MIT: dict[str, Any] = {
    "layerwise_depths": [2, 2],
    "image_shape": (32, 32, 3),
    "hidden_dims": [8, 16],
    "num_layers": 2,
    "layerwise_num_heads": [2, 4],
    "layerwise_sr_ratios": [4, 2],
    "max_drop_path_rate": 0.1,
    "layerwise_patch_sizes": [7, 3],
    "layerwise_strides": [4, 2],
}
VIT: dict[str, Any] = {"image_shape": (28, 28, 3), "num_layers": 2, "hidden_dim": 24, "num_heads": 4}
DINO: dict[str, Any] = {
    "num_layers": 2,
    "hidden_dim": 16,
    "num_heads": 4,
    "intermediate_dim": 32,
    "layer_scale_init_value": 1.0,
    "num_register_tokens": 2,
}
T5GEMMA: dict[str, Any] = {
    "vocabulary_size": 40,
    **{
        f"{side}_{key}": value
        for side in ("encoder", "decoder")
        for key, value in {
            "hidden_dim": 16,
            "intermediate_dim": 32,
            "num_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 4,
            "layer_types": ["sliding_attention", "full_attention"],
        }.items()
    },
    "dropout_rate": 0.1,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "query_pre_attn_scalar": 1.0,
    "attention_bias": False,
    "hidden_activation": "gelu_approximate",
    "sliding_window": 16,
    "cross_attention_hidden_size": 16,
    "attn_logit_softcapping": 50.0,
    "rope_max_wavelength": 10000.0,
    "initializer_range": 0.04,
    "attention_dropout": 0.1,
}
HGNET: dict[str, Any] = {
    "stem_channels": [3, 8, 8],
    "stackwise_stage_filters": [[8, 8, 16, 1, 1, 3], [16, 8, 32, 1, 1, 3]],
    "apply_downsample": [False, True],
    "use_lightweight_conv_block": [False, False],
    "depths": [1, 1],
    "hidden_sizes": [16, 32],
    "embedding_size": 8,
    "use_learnable_affine_block": True,
    "hidden_act": "relu",
    "image_shape": (64, 64, 3),
    "out_features": ["stage1", "stage2"],
}
MOBILENET: dict[str, Any] = {
    "stackwise_expansion": [[16, 24], [24, 32]],
    "stackwise_num_blocks": [2, 2],
    "stackwise_num_filters": [[8, 8], [12, 12]],
    "stackwise_kernel_size": [[3, 3], [5, 5]],
    "stackwise_num_strides": [[2, 1], [2, 1]],
    "stackwise_se_ratio": [[None, None], [0.25, 0.25]],
    "stackwise_activation": [["relu", "relu"], ["hard_swish", "hard_swish"], ["hard_swish"]],
    "stackwise_padding": [[1, 1], [2, 2]],
    "output_num_filters": 64,
    "input_activation": "hard_swish",
    "output_activation": "hard_swish",
    "input_num_filters": 8,
    "image_shape": (32, 32, 3),
    "depthwise_filters": 8,
    "depthwise_stride": 2,
    "depthwise_residual": False,
    "squeeze_and_excite": 0.5,
    "last_layer_filter": 48,
}
MOBILENET5: dict[str, Any] = {
    "stackwise_block_types": [["er"], ["uir", "mqa"]],
    "stackwise_num_blocks": [1, 2],
    "stackwise_num_filters": [[16], [24, 24]],
    "stackwise_strides": [[2], [2, 1]],
    "stackwise_act_layers": [["relu"], ["relu", "relu"]],
    "stackwise_exp_ratios": [[4.0], [4.0, 1.0]],
    "stackwise_se_ratios": [[0.0], [0.0, 0.0]],
    "stackwise_dw_kernel_sizes": [[0], [5, 3]],
    "stackwise_dw_start_kernel_sizes": [[0], [0, 0]],
    "stackwise_dw_end_kernel_sizes": [[0], [0, 0]],
    "stackwise_exp_kernel_sizes": [[3], [0, 0]],
    "stackwise_pw_kernel_sizes": [[1], [0, 0]],
    "stackwise_num_heads": [[0], [0, 4]],
    "stackwise_key_dims": [[0], [0, 8]],
    "stackwise_value_dims": [[0], [0, 8]],
    "stackwise_kv_strides": [[0], [0, 2]],
    "stackwise_use_cpe": [[False], [False, False]],
    "image_shape": (32, 32, 3),
    "stem_size": 8,
    "use_msfa": False,
}


# Classes that are not in KerasHub's public list, by module.
PARTS = {
    "BLIP2CustomOPT": "blip2.blip2_custom_opt",
    "BLIP2QFormer": "blip2.blip2_qformer",
    "BLIP2VisionEncoder": "blip2.blip2_vision_encoder",
    "Gemma3VisionEncoder": "gemma3.gemma3_vision_encoder",
    "Gemma4VisionEncoder": "gemma4.gemma4_vision_encoder",
    "SAMMaskDecoder": "sam.sam_mask_decoder",
    "SAMPromptEncoder": "sam.sam_prompt_encoder",
    "VAEBackbone": "vae.vae_backbone",
}


def backbone(name: str) -> Any:
    """One of KerasHub's classes."""
    import keras_hub

    if name in PARTS:
        return getattr(importlib.import_module(f"keras_hub.src.models.{PARTS[name]}"), name)
    return getattr(keras_hub.models, name)


def make(kind: str, /, **config: Any) -> Any:
    return backbone(kind)(**config)


def clip(prefix: str, **more: Any) -> Any:
    return make(
        f"{prefix}Backbone",
        vision_encoder=make(f"{prefix}VisionEncoder", **VISION, name="vision_encoder"),
        text_encoder=make(f"{prefix}TextEncoder", **WORDS, max_sequence_length=8, name="text_encoder"),
        **more,
    )


VISION: dict[str, Any] = {
    "patch_size": 8,
    "hidden_dim": 16,
    "num_layers": 2,
    "num_heads": 4,
    "intermediate_dim": 32,
    "image_shape": (32, 32, 3),
}
WORDS: dict[str, Any] = {
    "vocabulary_size": 40,
    "embedding_dim": 16,
    "hidden_dim": 16,
    "num_layers": 2,
    "num_heads": 4,
    "intermediate_dim": 32,
}


def blip2() -> Any:
    vision = make(
        "BLIP2VisionEncoder",
        image_size=16,
        patch_size=4,
        num_layers=2,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=16,
        use_patch_bias=True,
        use_class_token=True,
        use_mha_bias=True,
        use_mlp_bias=True,
        dropout_rate=0.0,
        layer_norm_epsilon=1e-6,
        initializer_range=0.02,
    )
    queries = make(
        "BLIP2QFormer",
        num_query_tokens=2,
        num_layers=2,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=16,
        vision_dim=8,
        cross_attention_frequency=1,
        dropout=0.0,
        layer_norm_epsilon=1e-6,
    )
    language = make(
        "BLIP2CustomOPT",
        vocabulary_size=40,
        num_layers=2,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=16,
        num_query_tokens=2,
        qformer_hidden_dim=8,
        max_sequence_length=16,
        dropout=0.0,
        language_projection=None,
    )
    return make("BLIP2Backbone", vision_encoder=vision, qformer=queries, language_model=language)


def dfine() -> Any:
    return make(
        "DFineBackbone",
        backbone=make("HGNetV2Backbone", **{**HGNET, "image_shape": (None, None, 3)}),
        decoder_in_channels=[16, 16],
        encoder_hidden_dim=16,
        num_denoising=10,
        num_labels=4,
        hidden_dim=16,
        learn_initial_query=False,
        num_queries=10,
        anchor_image_size=(32, 32),
        feat_strides=[4, 8],
        num_feature_levels=2,
        encoder_in_channels=[16, 32],
        encode_proj_layers=[1],
        num_attention_heads=2,
        encoder_ffn_dim=32,
        num_encoder_layers=1,
        hidden_expansion=0.5,
        depth_multiplier=0.5,
        eval_idx=-1,
        num_decoder_layers=3,
        decoder_attention_heads=2,
        decoder_ffn_dim=32,
        decoder_n_points=[2, 2],
        lqe_hidden_dim=16,
        num_lqe_layers=2,
        out_features=["stage1", "stage2"],
        image_shape=(32, 32, 3),
        seed=0,
    )


def dino(version: str, **more: Any) -> Any:
    return make(f"DINOV{version}Backbone", **DINO, **more)


def sam() -> Any:
    image = make(
        "ViTDetBackbone",
        hidden_size=16,
        num_layers=2,
        intermediate_dim=32,
        num_heads=4,
        global_attention_layer_indices=[1],
        patch_size=4,
        num_output_channels=8,
        window_size=2,
        image_shape=(32, 32, 3),
    )
    prompt = make(
        "SAMPromptEncoder", hidden_size=8, image_embedding_size=(8, 8), input_image_size=(32, 32), mask_in_channels=8
    )
    decoder = make(
        "SAMMaskDecoder",
        num_layers=2,
        hidden_size=8,
        intermediate_dim=16,
        num_heads=4,
        embedding_dim=8,
        num_multimask_outputs=3,
        iou_head_depth=3,
        iou_head_hidden_dim=8,
    )
    return make("SAMBackbone", image_encoder=image, prompt_encoder=prompt, mask_decoder=decoder)


def stable_diffusion() -> Any:
    encoders = {
        name: make("CLIPTextEncoder", **{**WORDS, "intermediate_output_index": -2}, name=name)
        for name in ("clip_l", "clip_g")
    }
    return make(
        "StableDiffusion3Backbone",
        mmdit_patch_size=2,
        mmdit_hidden_dim=16,
        mmdit_num_layers=2,
        mmdit_num_heads=2,
        mmdit_position_size=192,
        mmdit_qk_norm=None,
        mmdit_dual_attention_indices=None,
        vae=backbone("VAEBackbone")([32] * 4, [1] * 4, [32] * 4, [1] * 4, sampler_method="mode", name="vae"),
        **encoders,
        image_shape=(32, 32, 3),
    )


def seen_gemma(version: str) -> Any:
    encoder = {"image_size": 16, "patch_size": 4, "pool_size": 2, "num_layers": 2, "num_heads": 2}
    encoder.update(hidden_dim=8, intermediate_dim=16)
    if version == "4":
        encoder.update(head_dim=4, num_key_value_heads=2)
    vision = backbone(f"Gemma{version}VisionEncoder")(**encoder, output_dim=16)
    return make(
        f"Gemma{version}Backbone",
        **GROUPED,
        head_dim=4,
        image_size=16,
        use_sliding_window_attention=True,
        sliding_window_size=16,
        vision_encoder=vision,
    )


BACKBONES: dict[str, Any] = {
    "AlbertBackbone": lambda: make("AlbertBackbone", **TEXT, num_groups=1, num_inner_repetitions=1, embedding_dim=16),
    "BartBackbone": TEXT,
    "BASNetBackbone": lambda: make(
        "BASNetBackbone",
        image_encoder=make(
            "ResNetBackbone",
            **{
                **RESNET,
                "input_conv_filters": [64],
                "stackwise_num_filters": [64, 128, 256, 512],
                "stackwise_num_blocks": [1, 1, 1, 1],
                "stackwise_num_strides": [1, 2, 2, 2],
                "block_type": "basic_block",
            },
        ),
        num_classes=1,
        image_shape=(64, 64, 3),
    ),
    "BertBackbone": TEXT,
    "BLIP2Backbone": blip2,
    "BloomBackbone": {key: value for key, value in TEXT.items() if key != "max_sequence_length"},
    "CLIPBackbone": lambda: clip("CLIP", projection_dim=16),
    "CLIPTextEncoder": WORDS,
    "CLIPVisionEncoder": VISION,
    "CSPNetBackbone": {
        "stem_filters": 8,
        "stem_kernel_size": 3,
        "stem_strides": 1,
        "stackwise_strides": 2,
        "stackwise_depth": [1, 2],
        "stackwise_num_filters": [16, 24],
        "image_shape": (None, None, 3),
        "down_growth": True,
        "bottle_ratio": (0.5,) + (1.0,),
        "block_ratio": (1.0,) + (0.5,),
        "expand_ratio": (2.0,) + (1.0,),
        "block_type": "dark_block",
        "stage_type": "csp",
        "stem_padding": "same",
    },
    "DFineBackbone": dfine,
    "DINOV2Backbone": {**DINO, "patch_size": 14, "image_shape": (56, 56, 3)},
    "DINOV2Backbone (SwiGLU)": lambda: dino("2", patch_size=14, image_shape=(56, 56, 3), use_swiglu_ffn=True),
    "DINOV3Backbone": {**DINO, "patch_size": 4, "image_shape": (16, 16, 3)},
    "DebertaV3Backbone": {**TEXT, "bucket_size": 4},
    "DeepLabV3Backbone": lambda: make(
        "DeepLabV3Backbone",
        image_encoder=make("ResNetBackbone", **RESNET),
        low_level_feature_key="P2",
        spatial_pyramid_pooling_key="P4",
        dilation_rates=[2, 4, 6],
        upsampling_size=4,
        image_shape=(64, 64, 3),
    ),
    "DeiTBackbone": {**VIT, "patch_size": 4, "intermediate_dim": 48, "use_mha_bias": True},
    "DenseNetBackbone": {
        "stackwise_num_repeats": [2, 2, 2],
        "compression_ratio": 0.5,
        "growth_rate": 4,
        "image_shape": (32, 32, 3),
    },
    "DepthAnythingBackbone": lambda: make(
        "DepthAnythingBackbone",
        image_encoder=dino(
            "2",
            patch_size=14,
            image_shape=(56, 56, 3),
            apply_layernorm=True,
            name="image_encoder",
        ),
        reassemble_factors=[2, 1],
        neck_hidden_dims=[8, 16],
        fusion_hidden_dim=16,
        head_hidden_dim=8,
        head_in_index=-1,
        feature_keys=["stage1", "stage2"],
    ),
    "DistilBertBackbone": TEXT,
    "EdRecBackbone": {
        "vocab_size": 40,
        "num_layers_enc": 2,
        "num_layers_dec": 2,
        "num_heads": 4,
        "hidden_dim": 16,
        "intermediate_dim": 32,
        "dropout": 0.1,
    },
    "EfficientNetBackbone": {
        "stackwise_kernel_sizes": [3, 3, 3],
        "stackwise_num_repeats": [1, 2, 2],
        "stackwise_input_filters": [8, 8, 16],
        "stackwise_output_filters": [8, 16, 24],
        "stackwise_expansion_ratios": [1, 4, 4],
        "stackwise_squeeze_and_excite_ratios": [0.0, 0.0, 0.25],
        "stackwise_strides": [1, 2, 2],
        "stackwise_block_types": ["fused", "fused", "unfused"],
        "stackwise_force_input_filters": [0] * 3,
        "stackwise_nores_option": [False] * 3,
        "width_coefficient": 1.0,
        "depth_coefficient": 1.0,
        "image_shape": (64, 64, 3),
    },
    "ElectraBackbone": {
        **{key: value for key, value in TEXT.items() if key != "vocabulary_size"},
        "vocab_size": 40,
        "embedding_dim": 16,
    },
    "ESMBackbone": {key: value for key, value in TEXT.items() if key != "max_sequence_length"},
    "FNetBackbone": {key: value for key, value in TEXT.items() if key != "num_heads"},
    "FalconBackbone": {
        "vocabulary_size": 40,
        "num_layers": 2,
        "num_attention_heads": 4,
        "hidden_dim": 16,
        "intermediate_dim": 32,
    },
    "FluxBackbone": {
        "input_channels": 16,
        "hidden_size": 32,
        "mlp_ratio": 2.0,
        "num_heads": 4,
        "depth": 1,
        "depth_single_blocks": 1,
        "axes_dim": [2, 2, 4],
        "theta": 10_000,
        "use_bias": True,
        "guidance_embed": True,
        "image_shape": (16, 16),
        "text_shape": (16, 16),
        "image_ids_shape": (16, 3),
        "text_ids_shape": (16, 3),
        "y_shape": (16,),
    },
    "GPT2Backbone": TEXT,
    "GPTNeoXBackbone": {**TEXT, "rotary_percentage": 0.5},
    "GemmaBackbone": {**GROUPED, "num_key_value_heads": 1, "head_dim": 4},
    "GemmaBackbone (2)": lambda: make(
        "GemmaBackbone",
        **GROUPED,
        head_dim=4,
        sliding_window_size=5,
        attention_logit_soft_cap=50,
        final_logit_soft_cap=30,
        query_head_dim_normalize=False,
        use_post_ffw_norm=True,
        use_post_attention_norm=True,
        use_sliding_window_attention=True,
    ),
    "Gemma3Backbone": {
        **GROUPED,
        "head_dim": 4,
        "image_size": 16,
        "use_query_key_norm": True,
        "use_post_ffw_norm": True,
        "use_post_attention_norm": True,
        "use_sliding_window_attention": True,
        "sliding_window_size": 16,
        "vision_encoder": None,
    },
    "Gemma3Backbone (vision)": lambda: seen_gemma("3"),
    "Gemma3nBackbone": {
        "text_vocab_size": 40,
        "text_hidden_size": 16,
        "num_hidden_layers": 2,
        "pad_token_id": 0,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 4,
        "intermediate_size": [32, 32],
        "hidden_activation": "gelu_approximate",
        "layer_types": ["full_attention", "sliding_attention"],
        "sliding_window": 4,
        "rope_theta": 10000.0,
        "max_position_embeddings": 16,
        "vocab_size_per_layer_input": 40,
        "hidden_size_per_layer_input": 4,
        "altup_num_inputs": 2,
        "laurel_rank": 2,
    },
    "Gemma4Backbone": {
        **GROUPED,
        "head_dim": 4,
        "image_size": 16,
        "use_sliding_window_attention": True,
        "sliding_window_size": 16,
        "vision_encoder": None,
    },
    "Gemma4Backbone (vision)": lambda: seen_gemma("4"),
    "GptOssBackbone": {**EXPERTS, "sliding_window": 8},
    "HGNetV2Backbone": HGNET,
    "Llama3Backbone": GROUPED,
    "LlamaBackbone": GROUPED,
    "MetaCLIP2Backbone": lambda: clip("MetaCLIP2", projection_dim=16),
    "MetaCLIP2TextEncoder": WORDS,
    "MetaCLIP2VisionEncoder": VISION,
    "MiTBackbone": MIT,
    "MistralBackbone": {**GROUPED, "sliding_window": 8},
    "MixtralBackbone": {**EXPERTS, "sliding_window": 8},
    "MobileNetBackbone": MOBILENET,
    "MobileNetV5Backbone": MOBILENET5,
    "MoonshineBackbone": {
        "vocabulary_size": 40,
        "filter_dim": 16,
        "encoder_num_layers": 2,
        "decoder_num_layers": 2,
        "hidden_dim": 16,
        "intermediate_dim": 32,
        "encoder_num_heads": 4,
        "decoder_num_heads": 4,
        "feedforward_expansion_factor": 2,
        "encoder_use_swiglu_activation": False,
        "decoder_use_swiglu_activation": True,
        "max_position_embeddings": 64,
        "partial_rotary_factor": 0.62,
    },
    "OPTBackbone": TEXT,
    "PARSeqBackbone": lambda: make(
        "PARSeqBackbone",
        image_encoder=make(
            "ViTBackbone",
            **{**VIT, "image_shape": (16, 32, 3), "hidden_dim": 16},
            patch_size=(4, 8),
            mlp_dim=32,
            use_class_token=False,
            name="image_encoder",
        ),
        vocabulary_size=40,
        max_label_length=12,
        decoder_hidden_dim=16,
        num_decoder_layers=1,
        num_decoder_heads=4,
        decoder_mlp_dim=32,
    ),
    "PaliGemmaBackbone": {
        **GROUPED,
        "num_key_value_heads": 1,
        "head_dim": 4,
        "image_size": 16,
        "vit_patch_size": 4,
        "vit_num_layers": 2,
        "vit_num_heads": 4,
        "vit_hidden_dim": 16,
        "vit_intermediate_dim": 32,
    },
    "Phi3Backbone": GROUPED,
    "Qwen3Backbone": {**GROUPED, "head_dim": 4},
    "Qwen3MoeBackbone": {**EXPERTS, "head_dim": 4, "moe_intermediate_dim": 16},
    "Qwen3_5Backbone": QWEN3_5,
    "Qwen3_5MoeBackbone": {
        **{key: value for key, value in QWEN3_5.items() if key != "intermediate_dim"},
        "moe_intermediate_dim": 16,
        "shared_expert_intermediate_size": 16,
        "num_experts": 4,
        "top_k": 2,
    },
    "QwenBackbone": GROUPED,
    "QwenMoeBackbone": {**EXPERTS, "moe_intermediate_dim": 16, "shared_expert_intermediate_dim": 32},
    "RWKV7Backbone": {
        "vocabulary_size": 40,
        "hidden_size": 16,
        "num_layers": 2,
        "head_size": 4,
        "intermediate_dim": 32,
        "gate_lora": 8,
        "mv_lora": 8,
        "aaa_lora": 8,
        "decay_lora": 8,
    },
    "ResNetBackbone": RESNET,
    "RetinaNetBackbone": lambda: make(
        "RetinaNetBackbone",
        image_encoder=make(
            "ResNetBackbone",
            **{
                **RESNET,
                "stackwise_num_filters": [64, 16, 16, 16],
                "stackwise_num_blocks": [1, 1, 1, 1],
                "stackwise_num_strides": [1, 2, 2, 2],
            },
        ),
        min_level=3,
        max_level=7,
        use_p5=True,
    ),
    "RobertaBackbone": TEXT,
    "RoformerV2Backbone": {
        **{key: value for key, value in TEXT.items() if key != "max_sequence_length"},
        "head_size": 4,
    },
    "SAMBackbone": sam,
    "SegFormerBackbone": lambda: make(
        "SegFormerBackbone", image_encoder=make("MiTBackbone", **MIT), projection_filters=16
    ),
    "SigLIPBackbone": lambda: clip("SigLIP"),
    "SigLIPTextEncoder": {**WORDS, "max_sequence_length": 8},
    "SigLIPVisionEncoder": VISION,
    "SmolLM3Backbone": {
        "vocabulary_size": 40,
        "hidden_dim": 16,
        "intermediate_dim": 32,
        "num_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "rope_layer_enabled_list": [True, True],
        "layer_types": ["attention", "attention"],
        "mlp_bias": False,
        "layer_norm_epsilon": 1e-5,
        "max_position_embeddings": 64,
        "rope_theta": 10000.0,
        "partial_rotary_factor": 1.0,
    },
    "StableDiffusion3Backbone": stable_diffusion,
    "SwinTransformerBackbone": {
        "image_shape": (32, 32, 3),
        "embed_dim": 16,
        "depths": (2, 2),
        "num_heads": (2, 4),
        "window_size": 4,
    },
    "T5Backbone": {key: value for key, value in TEXT.items() if key != "max_sequence_length"},
    "T5GemmaBackbone": T5GEMMA,
    "T5Gemma2Backbone": {**T5GEMMA, "use_query_key_norm": True},
    "VAEBackbone": {
        "encoder_num_filters": [32, 32],
        "encoder_num_blocks": [1, 1],
        "decoder_num_filters": [32, 32],
        "decoder_num_blocks": [1, 1],
        "sampler_method": "mode",
        "image_shape": (32, 32, 3),
    },
    "VGGBackbone": {
        "stackwise_num_repeats": [2, 2],
        "stackwise_num_filters": [8, 16],
        "image_shape": (32, 32, 3),
    },
    "ViTBackbone": {**VIT, "patch_size": (4, 4), "mlp_dim": 48, "use_mha_bias": True},
    "ViTDetBackbone": {
        "image_shape": (32, 32, 3),
        "patch_size": 4,
        "hidden_size": 16,
        "num_layers": 2,
        "global_attention_layer_indices": [1],
        "intermediate_dim": 32,
        "num_heads": 4,
        "num_output_channels": 8,
        "window_size": 2,
    },
    "VideoPrismBackbone": {
        "image_shape": (16, 16, 3),
        "num_frames": 4,
        "patch_size": 4,
        "hidden_dim": 16,
        "intermediate_dim": 32,
        "num_heads": 4,
        "num_spatial_layers": 1,
        "num_temporal_layers": 1,
        "num_auxiliary_layers": 1,
        "vocabulary_size": 0,
        "num_text_layers": 0,
    },
    "WhisperBackbone": {
        **{key: value for key, value in TEXT.items() if key != "max_sequence_length"},
        "max_encoder_sequence_length": 8,
        "max_decoder_sequence_length": 8,
    },
    "XLMRobertaBackbone": TEXT,
    "XLNetBackbone": {key: value for key, value in TEXT.items() if key != "max_sequence_length"},
    "XceptionBackbone": {
        "stackwise_conv_filters": [[8, 16], [24, 24], [32, 32]],
        "stackwise_pooling": [False, True, False],
        "image_shape": (64, 64, 3),
    },
}

# Tasks: the backbone that each stands on, and what it takes beside it.
CLASSES = {"num_classes": 5}
TASKS: dict[str, tuple[str, dict[str, Any]]] = {
    **{
        f"{family}TextClassifier": (f"{family}Backbone", CLASSES)
        for family in ("Albert", "Bert", "DebertaV3", "DistilBert", "FNet", "Roberta", "RoformerV2", "XLMRoberta")
    },
    **{
        f"{family}MaskedLM": (f"{family}Backbone", {})
        for family in ("Albert", "Bert", "DebertaV3", "DistilBert", "FNet", "Roberta", "RoformerV2", "XLMRoberta")
    },
    **{
        f"{family}CausalLM": (f"{family}Backbone", {})
        for family in (
            *("Bloom", "Falcon", "GPT2", "GPTNeoX", "Gemma", "Gemma3", "Gemma3n", "Gemma4", "GptOss", "Llama3"),
            *("Llama", "Mistral", "Mixtral", "OPT", "PaliGemma", "Phi3", "Qwen3", "Qwen3Moe", "Qwen3_5"),
            *("Qwen3_5Moe", "Qwen", "QwenMoe", "RWKV7", "SmolLM3", "BLIP2"),
        )
    },
    **{f"{family}Seq2SeqLM": (f"{family}Backbone", {}) for family in ("Bart", "EdRec", "T5Gemma2", "T5Gemma", "T5")},
    **{
        f"{family}ImageClassifier": (f"{family}Backbone", CLASSES)
        for family in (
            *("CSPNet", "DeiT", "DenseNet", "EfficientNet", "HGNetV2", "MiT", "MobileNet", "MobileNetV5", "ResNet"),
            *("SwinTransformer", "ViT", "Xception"),
        )
    },
    "VGGImageClassifier": ("VGGBackbone", {**CLASSES, "pooling": "avg"}),
    "BASNetImageSegmenter": ("BASNetBackbone", {}),
    "DeepLabV3ImageSegmenter": ("DeepLabV3Backbone", CLASSES),
    "SegFormerImageSegmenter": ("SegFormerBackbone", CLASSES),
    "SAMImageSegmenter": ("SAMBackbone", {}),
    "DepthAnythingDepthEstimator": ("DepthAnythingBackbone", {"depth_estimation_type": "relative"}),
    "DFineObjectDetector": ("DFineBackbone", CLASSES),
    "RetinaNetObjectDetector": ("RetinaNetBackbone", CLASSES),
    "MoonshineAudioToText": ("MoonshineBackbone", {}),
    "ESMProteinClassifier": ("ESMBackbone", CLASSES),
    "ESMMaskedPLM": ("ESMBackbone", {}),
}


def build(name: str) -> Any:
    """The network of a name in `BACKBONES` or `TASKS`, with KerasHub's own initial weights."""
    import keras
    import keras_hub

    keras.utils.set_random_seed(0)
    if name in TASKS:
        base, options = TASKS[name]
        return getattr(keras_hub.models, name)(backbone=build(base), preprocessor=None, **options)
    recipe = BACKBONES[name]
    return recipe() if callable(recipe) else make(name, **recipe)
