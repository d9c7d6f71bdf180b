"""Tiny tokenizers made of one sentence: T5's pieces, byte-level BPE for CLIP, Gemma and other language models."""

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

CORPUS = ["a red fox in the snow, a cat under a yellow house; don't draw unhappiness with thick outlines"] * 4


def tiny_tokenizer(kind: str) -> Tokenizer:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if kind == "t5":
        pieces = [*"abcdefghijklmnopqrstuvwxyz,;'▁", *(f"▁{word}" for word in ["a", "red", "fox", "the", "cat", "house", "snow"])]
        vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -20.0), *((piece, -9.0 + len(piece)) for piece in pieces)]
        tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=2))
        tokenizer.normalizer = normalizers.NFKC()
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        tokenizer.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
        return tokenizer
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = {"qwen2": ["<|startoftext|>"], "gemma": ["<pad>", "<eos>", "<bos>"]}.get(kind, [])
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, special_tokens=specials))
    if kind == "gemma":
        tokenizer.post_processor = processors.TemplateProcessing("<bos> $A", special_tokens=[("<bos>", 2)])
    elif kind != "qwen2":
        tokenizer.normalizer = normalizers.Lowercase()
        # CLIP's end-of-text token has the highest id, and old configs lean on it.
        tokenizer.add_special_tokens(["<|startoftext|>", "<|endoftext|>"])
        specials = [(t, tokenizer.token_to_id(t)) for t in ("<|startoftext|>", "<|endoftext|>")]
        tokenizer.post_processor = processors.TemplateProcessing("<|startoftext|> $A <|endoftext|>", special_tokens=specials)
    return tokenizer
