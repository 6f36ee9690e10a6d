"""The tiny model and the synthetic prompts of the smoke profile: made in memory, no download."""

import pandas as pd


def requests(kind: str) -> pd.DataFrame:
    """Synthetic requests of the smoke profile, in the words that the tiny tokenizer knows."""
    verbs = {"harmful": "break steal forge poison rob hack burn smuggle",
             "benign": "write bake draw plant sing build explain describe"}
    # three words each: two texts that share two of them stay below the clustering threshold
    texts = [f"{verb} {adjective} {noun}" for verb in verbs[kind].split()
             for adjective in "small red old new".split() for noun in "lamp chair bridge garden poem song".split()]
    answer = "here is how you do it first take the lamp and then make a garden"
    return pd.DataFrame({"text": texts, "response": [answer if kind == "benign" else ""] * len(texts)})


def labels() -> pd.DataFrame:
    """As many refusals as answers, labelled by construction."""
    table = requests("benign").iloc[:20]
    return table.assign(human=[i % 2 == 0 for i in range(20)], response=[
        "Sorry, no." if i % 2 == 0 else f"Here is the {t}" for i, t in enumerate(table["text"])])


def questions() -> list[dict]:
    """Multiple-choice questions: question, options (list), answer (position)."""
    words = [(a, b) for a in ("red", "old", "new") for b in ("poem", "song", "cake")]
    return [{"question": f"answer the question {a} {b}", "options": ["correct lamp", "wrong chair"],
             "answer": number % 2} for number, (a, b) in enumerate(words)]


TINY_WORDS = ("i can not help with that request sorry here is how you do it first take the and then "
              "make a safe small red old new lamp chair bridge garden poem song cake letter plan "
              "break steal forge poison rob hack burn smuggle write bake draw plant sing build explain describe "
              "sure of yes no why what today please step one two three answer question correct wrong").split()

_TINY_TEMPLATE = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}<s> system you help </s> {% endif %}"
    "<s> {{ m['role'] }} {{ m['content'] }} </s> {% endfor %}{% if add_generation_prompt %}<s> assistant {% endif %}")


def model(seed: int = 0, *, layers: int = 2, heads: int = 4, kv_heads: int = 2):
    """``(model, tokenizer)``: a random Llama of a few thousand weights, and a word tokenizer."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    specials = ["<pad>", "<unk>", "<s>", "</s>", "system", "user", "assistant", "you", "help"]
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys(specials + TINY_WORDS))}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", pad_token="</s>",
                                        eos_token="</s>", bos_token="<s>", chat_template=_TINY_TEMPLATE)
    config = LlamaConfig(vocab_size=len(vocabulary), hidden_size=32, intermediate_size=48, num_hidden_layers=layers,
                         num_attention_heads=heads, num_key_value_heads=kv_heads, max_position_embeddings=512,
                         tie_word_embeddings=True, bos_token_id=2, eos_token_id=3, pad_token_id=3)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).eval(), tokenizer
