"""diffusers' own pipelines at tiny random sizes, saved as they save themselves, and one picture asked of both sides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers as tf
from tests.tokenizing import tiny_tokenizer
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn

TOKENS = 24


def alive(module: nn.Module, seed: int = 0) -> nn.Module:
    """Fresh weights are so small, or so many zero, that a wrong picture would pass: every one is moved."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return module.eval()


def tokenizer(kind: str) -> Any:
    marks = {
        "t5": {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"},
        "gemma": {"bos_token": "<bos>", "pad_token": "<pad>", "eos_token": "<eos>"},
    }
    names = marks.get(kind, {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"})
    return tf.PreTrainedTokenizerFast(
        tokenizer_object=tiny_tokenizer(kind), model_max_length=100_000 if kind == "gemma" else TOKENS, **names
    )


def t5(width: int) -> Any:
    torch.manual_seed(1)
    size = tiny_tokenizer("t5").get_vocab_size()
    return alive(tf.T5EncoderModel(tf.T5Config(vocab_size=size, d_model=width, d_kv=4, d_ff=16, num_layers=2, num_heads=2, pad_token_id=0)))


def clip(width: int, projected: int | None, seed: int) -> Any:
    torch.manual_seed(seed)
    size = tiny_tokenizer("clip").get_vocab_size()
    shape = {
        "hidden_size": width,
        "intermediate_size": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "projection_dim": projected or 8,
    }
    marks = {"bos_token_id": size - 2, "eos_token_id": size - 1, "pad_token_id": size - 1}
    config = tf.CLIPTextConfig(vocab_size=size, max_position_embeddings=TOKENS, **shape, **marks)
    return alive((tf.CLIPTextModelWithProjection if projected else tf.CLIPTextModel)(config), seed)


def gemma(width: int, second: bool = True) -> Any:
    torch.manual_seed(5)
    shape = {
        "vocab_size": tiny_tokenizer("gemma").get_vocab_size(), "hidden_size": width, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2,
    }  # fmt: skip
    return alive(tf.Gemma2Model(tf.Gemma2Config(**shape)) if second else tf.GemmaModel(tf.GemmaConfig(**shape)))


def vae(channels: int = 4, levels: int = 2, **scales: float) -> Any:
    torch.manual_seed(2)
    return alive(
        diffusers.AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * levels, up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=(8,) * levels, layers_per_block=1, latent_channels=channels, norm_num_groups=4, **scales,
        )
    )  # fmt: skip


def pixart(kind: str = "Alpha", scheduler: Any = None, levels: int = 2, **shape: Any) -> Any:
    """Alpha is told sizes (sample_size 128), Sigma is not. A codec of f2, with 4 `levels` of f8."""
    torch.manual_seed(0)
    config = {
        "num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 12, "cross_attention_dim": 24, "caption_channels": 16,
        "sample_size": 128 if kind == "Alpha" else 16, "interpolation_scale": 16 if kind == "Alpha" else 2, **shape,
    }  # fmt: skip
    network = alive(diffusers.PixArtTransformer2DModel(**config))
    scheduler = scheduler or diffusers.DPMSolverMultistepScheduler()
    made = getattr(diffusers, f"PixArt{kind}Pipeline")
    return made(
        tokenizer=tokenizer("t5"), text_encoder=t5(16), vae=vae(levels=levels, scaling_factor=0.6), transformer=network, scheduler=scheduler
    )


def sd3(with_t5: bool = True, shift: float = 3.0, **shape: Any) -> Any:
    torch.manual_seed(0)
    config = {
        "num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 16, "joint_attention_dim": 24, "caption_projection_dim": 32,
        "pooled_projection_dim": 14, "in_channels": 4, "out_channels": 4, "sample_size": 16, "pos_embed_max_size": 12, **shape,
    }  # fmt: skip
    return diffusers.StableDiffusion3Pipeline(
        transformer=alive(diffusers.SD3Transformer2DModel(**config)),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=shift),
        vae=vae(scaling_factor=1.5, shift_factor=0.06),
        text_encoder=clip(8, 6, 3), tokenizer=tokenizer("clip"), text_encoder_2=clip(12, 8, 4), tokenizer_2=tokenizer("clip"),
        text_encoder_3=t5(24) if with_t5 else None, tokenizer_3=tokenizer("t5") if with_t5 else None,
    )  # fmt: skip


def flux(guided: bool = True, **shape: Any) -> Any:
    torch.manual_seed(0)
    config = {
        "num_layers": 1, "num_single_layers": 1, "num_attention_heads": 2, "attention_head_dim": 16, "in_channels": 16,
        "joint_attention_dim": 16, "pooled_projection_dim": 8, "axes_dims_rope": (4, 6, 6), "guidance_embeds": guided, **shape,
    }  # fmt: skip
    shifting = {"use_dynamic_shifting": True, "shift": 3.0} if guided else {"shift": 1.0}
    return diffusers.FluxPipeline(
        transformer=alive(diffusers.FluxTransformer2DModel(**config)),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**shifting),
        vae=vae(scaling_factor=0.4, shift_factor=0.1),
        text_encoder=clip(8, None, 3), tokenizer=tokenizer("clip"), text_encoder_2=t5(16), tokenizer_2=tokenizer("t5"),
    )  # fmt: skip


SCALED = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def unet(**shape: Any) -> Any:
    torch.manual_seed(0)
    config = {
        "block_out_channels": (8, 16), "norm_num_groups": 4, "layers_per_block": 1, "attention_head_dim": 2, "cross_attention_dim": 8,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "sample_size": 16, **shape,
    }  # fmt: skip
    return alive(diffusers.UNet2DConditionModel(**config))


def sd(scheduler: Any = None, **shape: Any) -> Any:
    """Stable Diffusion 1 or 2, by default with the scheduler that 1.5's folder names."""
    pndm = diffusers.PNDMScheduler(**SCALED, skip_prk_steps=True, steps_offset=1)
    return diffusers.StableDiffusionPipeline(
        unet=unet(**shape), scheduler=scheduler or pndm, vae=vae(scaling_factor=0.6), text_encoder=clip(8, None, 3),
        tokenizer=tokenizer("clip"), safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


XL = {
    "attention_head_dim": (2, 4), "use_linear_projection": True, "transformer_layers_per_block": (1, 2), "cross_attention_dim": 20,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "addition_embed_type": "text_time", "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 8 + 6 * 8,
}  # fmt: skip
REFINER = {**XL, "cross_attention_dim": 12, "projection_class_embeddings_input_dim": 12 + 5 * 8}


def euler(spacing: str = "leading", **settings: Any) -> Any:
    return diffusers.EulerDiscreteScheduler(**SCALED, timestep_spacing=spacing, steps_offset=1, **settings)


def sdxl(scheduler: Any = None, zeros: bool = True, **shape: Any) -> Any:
    return diffusers.StableDiffusionXLPipeline(
        unet=unet(**{**XL, **shape}), scheduler=scheduler or euler(), vae=vae(scaling_factor=0.6),
        text_encoder=clip(8, None, 3), tokenizer=tokenizer("clip"), text_encoder_2=clip(12, 8, 4), tokenizer_2=tokenizer("clip"),
        force_zeros_for_empty_prompt=zeros, add_watermarker=False,
    )  # fmt: skip


def refiner(scheduler: Any = None) -> Any:
    """The second encoder alone, five numbers, an empty prompt that is read."""
    return diffusers.StableDiffusionXLImg2ImgPipeline(
        unet=unet(**REFINER), scheduler=scheduler or euler(), vae=vae(scaling_factor=0.6), text_encoder=None, tokenizer=None,
        text_encoder_2=clip(12, 12, 5), tokenizer_2=tokenizer("clip"), requires_aesthetics_score=True, force_zeros_for_empty_prompt=False,
        add_watermarker=False,
    )  # fmt: skip


def llama(width: int, layers: int) -> tuple[Any, Any]:
    """A language model and its tokenizer, which begins a text and has no padding of its own."""
    torch.manual_seed(5)
    words = tiny_tokenizer("qwen2")
    words.add_special_tokens(["<|endoftext|>"])
    words.post_processor = TemplateProcessing("<|startoftext|> $A", special_tokens=[("<|startoftext|>", 0)])
    size = words.get_vocab_size()
    shape = {"hidden_size": width, "intermediate_size": 16, "num_hidden_layers": layers, "num_attention_heads": 2, "num_key_value_heads": 1}
    config = tf.LlamaConfig(vocab_size=size, bos_token_id=0, eos_token_id=size - 1, **shape)
    marks = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"}
    return alive(tf.LlamaForCausalLM(config)), tf.PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=TOKENS, **marks)


def hidream(scheduler: Any, **shape: Any) -> Any:
    """Pictures of 16 x 16 pixels or as large an area; the transformer fills them up to 36 tokens."""
    torch.manual_seed(0)
    config = {
        "num_layers": 1, "num_single_layers": 2, "num_attention_heads": 2, "attention_head_dim": 16, "in_channels": 4, "patch_size": 2,
        "text_emb_dim": 14, "caption_channels": [16, 8], "axes_dims_rope": (8, 4, 4), "max_resolution": (8, 8), "llama_layers": [0, 1, 1],
        **shape,
    }  # fmt: skip
    model, words = llama(8, 2)
    pipe = diffusers.HiDreamImagePipeline(
        transformer=alive(diffusers.HiDreamImageTransformer2DModel(**config)), scheduler=scheduler,
        vae=vae(scaling_factor=0.4, shift_factor=0.1),
        text_encoder=clip(8, 6, 3), tokenizer=tokenizer("clip"), text_encoder_2=clip(12, 8, 4), tokenizer_2=tokenizer("clip"),
        text_encoder_3=t5(16), tokenizer_3=tokenizer("t5"), text_encoder_4=model, tokenizer_4=words,
    )  # fmt: skip
    pipe.default_sample_size = 8
    return pipe


def dc(channels: int = 4, levels: int = 3) -> Any:
    """A codec of f4, with 6 `levels` of f32."""
    torch.manual_seed(2)
    types, widths = ("ResBlock",) * (levels - 1) + ("EfficientViTBlock",), (8,) * (levels - 1) + (16,)
    layers, scales = (1,) * levels, ((),) * (levels - 1) + ((5,),)
    return alive(
        diffusers.AutoencoderDC(
            latent_channels=channels, attention_head_dim=4, encoder_block_types=types, decoder_block_types=types,
            encoder_block_out_channels=widths, decoder_block_out_channels=widths, encoder_layers_per_block=layers,
            decoder_layers_per_block=layers, encoder_qkv_multiscales=scales, decoder_qkv_multiscales=scales, scaling_factor=0.41407,
        )
    )  # fmt: skip


def sana(scheduler: Any = None, levels: int = 3, **shape: Any) -> Any:
    torch.manual_seed(0)
    config = {
        "in_channels": 4, "out_channels": 4, "num_attention_heads": 3, "attention_head_dim": 8, "num_layers": 2, "sample_size": 8,
        "num_cross_attention_heads": 2, "cross_attention_head_dim": 12, "cross_attention_dim": 24, "caption_channels": 16, **shape,
    }  # fmt: skip
    flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
    return diffusers.SanaPipeline(
        transformer=alive(diffusers.SanaTransformer2DModel(**config)), vae=dc(levels=levels), text_encoder=gemma(16),
        tokenizer=tokenizer("gemma"), scheduler=scheduler or diffusers.DPMSolverMultistepScheduler(**flow),
    )  # fmt: skip


def lumina(shift: float = 1.0, **shape: Any) -> Any:
    """A codec of f8, which their pipelines take for granted."""
    torch.manual_seed(0)
    config = {
        "sample_size": 8, "hidden_size": 32, "num_layers": 2, "num_attention_heads": 4, "num_kv_heads": 2, "multiple_of": 16,
        "cross_attention_dim": 16, "ffn_dim_multiplier": None, **shape,
    }  # fmt: skip
    network = alive(diffusers.LuminaNextDiT2DModel(**config))
    for layer in network.layers:
        # As published: one query serves both attentions.
        layer.attn2.to_q.load_state_dict(layer.attn1.to_q.state_dict())
        layer.attn2.norm_q.load_state_dict(layer.attn1.norm_q.state_dict())
    return diffusers.LuminaPipeline(
        transformer=network, vae=vae(levels=4, scaling_factor=0.6), text_encoder=gemma(16, False),
        tokenizer=tokenizer("gemma"), scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=shift),
    )  # fmt: skip


def lumina2(shift: float = 6.0, dynamic: bool = False, **shape: Any) -> Any:
    torch.manual_seed(0)
    config = {
        "sample_size": 8, "in_channels": 4, "hidden_size": 48, "num_layers": 2, "num_refiner_layers": 1, "num_attention_heads": 4,
        "num_kv_heads": 2, "multiple_of": 16, "ffn_dim_multiplier": None, "axes_dim_rope": (4, 4, 4), "axes_lens": (300, 32, 32),
        "cap_feat_dim": 16, **shape,
    }  # fmt: skip
    return diffusers.Lumina2Pipeline(
        transformer=alive(diffusers.Lumina2Transformer2DModel(**config)), vae=vae(levels=4, scaling_factor=0.36, shift_factor=0.12),
        text_encoder=gemma(16), tokenizer=tokenizer("gemma"),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=shift, use_dynamic_shifting=dynamic),
    )  # fmt: skip


def dit(scheduler: Any = None, **shape: Any) -> Any:
    """1000 classes, for their pipeline takes that for granted."""
    torch.manual_seed(0)
    config = {
        "num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 4, "out_channels": 8, "sample_size": 8, **shape,
    }  # fmt: skip
    scheduler = scheduler or diffusers.DDIMScheduler(clip_sample=False)
    network = alive(diffusers.DiTTransformer2DModel(**config))
    first = network.transformer_blocks[0].norm1.emb.state_dict()
    for block in network.transformer_blocks:
        # As published: one embedding of time and class for all blocks.
        block.norm1.emb.load_state_dict(first)
    return diffusers.DiTPipeline(transformer=network, vae=vae(scaling_factor=0.6), scheduler=scheduler)


def unidiffuser(scheduler: Any = None, small: int | None = 6, **shape: Any) -> Any:
    """Pictures of 16 x 16 pixels; `small`: width of a caption's latent, None: CLIP's. Their decoder's two tables of words are set apart, as
    theirs cannot be written while they are one tensor.
    """
    torch.manual_seed(0)
    words = tokenizer("clip")
    config = {
        "num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 4, "out_channels": 4, "num_layers": 2, "sample_size": 8,
        "patch_size": 2, "text_dim": small or 8, "clip_img_dim": 10, "num_text_tokens": TOKENS, "use_data_type_embedding": True,
        "activation_fn": "gelu", "block_type": "unidiffuser", "norm_type": "layer_norm", "pre_layer_norm": False, "ff_final_dropout": True,
        "norm_elementwise_affine": True, "attention_bias": False, "use_timestep_embedding": False, **shape,
    }  # fmt: skip
    decoder = alive(
        diffusers.UniDiffuserTextDecoder(
            TOKENS, 8, small, vocab_size=len(words), n_positions=128, n_embd=8 if small is None else 12, n_layer=2, n_head=2
        )
    )
    decoder.transformer.config.tie_word_embeddings = False
    decoder.transformer.lm_head.weight = nn.Parameter(decoder.transformer.lm_head.weight.detach().clone())
    torch.manual_seed(7)
    tower = {
        "hidden_size": 12,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 8,
    }
    return diffusers.UniDiffuserPipeline(
        unet=alive(diffusers.UniDiffuserModel(**config)), vae=vae(scaling_factor=0.6), text_encoder=clip(8, None, 3),
        clip_tokenizer=tokenizer("clip"), text_decoder=decoder, text_tokenizer=words,
        image_encoder=alive(tf.CLIPVisionModelWithProjection(tf.CLIPVisionConfig(projection_dim=10, **tower))),
        clip_image_processor=tf.CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}),
        scheduler=scheduler or diffusers.DPMSolverMultistepScheduler(**SCALED),
    )  # fmt: skip


def saved(pipe: Any, folder: Path) -> Path:
    pipe.save_pretrained(folder)
    return folder


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def drawn(pipe: Any, latents: Tensor, **call: Any) -> Tensor:
    """diffusers' pictures (B, 3, H, W) in [-1, 1]."""
    pipe.set_progress_bar_config(disable=True)
    pixels = pipe(latents=latents, output_type="pt", **call).images
    return 2 * pixels - 1
