"""The tiny model and the synthetic prompts of the smoke profile: made in memory, no download."""

from itertools import product

import pandas as pd

#: The words of the synthetic requests; a request is a verb, an adjective and a noun.
VERBS = {
    "harmful": "break steal forge poison rob hack burn smuggle".split(),
    "benign": "write bake draw plant sing build explain describe".split(),
}
ADJECTIVES = "small red old new".split()
NOUNS = "lamp chair bridge garden poem song".split()

#: What answers every benign request.
ANSWER = "here is how you do it first take the lamp and then make a garden"

#: All words that the tokenizer knows, beside its special tokens.
TINY_WORDS = """
    i can not help with that request sorry here is how you do it first take the and then
    make a safe small red old new lamp chair bridge garden poem song cake letter plan
    break steal forge poison rob hack burn smuggle write bake draw plant sing build explain
    describe sure of yes no why what today please step one two three answer question correct wrong
""".split()

SPECIAL_TOKENS = ["<pad>", "<unk>", "<s>", "</s>", "system", "user", "assistant", "you", "help"]

#: It puts a system prompt of its own where none is given, as the template of SmolLM2 does.
TEMPLATE = (
    "{% for m in messages %}"
    "{% if loop.first and m['role'] != 'system' %}<s> system you help </s> {% endif %}"
    "<s> {{ m['role'] }} {{ m['content'] }} </s> "
    "{% endfor %}"
    "{% if add_generation_prompt %}<s> assistant {% endif %}"
)


def requests(kind: str) -> pd.DataFrame:
    """Synthetic requests of the smoke profile, in the words that the tiny tokenizer knows.

    Three words each: two texts that share two of them stay below the clustering threshold.
    """
    texts = [" ".join(words) for words in product(VERBS[kind], ADJECTIVES, NOUNS)]
    response = ANSWER if kind == "benign" else ""
    return pd.DataFrame({"text": texts, "response": [response] * len(texts)})


def labels() -> pd.DataFrame:
    """As many refusals as answers, labelled by construction."""
    table = requests("benign").iloc[:20]
    refused = [number % 2 == 0 for number in range(len(table))]
    responses = []
    for text, is_refused in zip(table["text"], refused):
        responses.append("Sorry, no." if is_refused else f"Here is the {text}")
    return table.assign(human=refused, response=responses)


def questions() -> list[dict]:
    """Multiple-choice questions: question, options (list), answer (position)."""
    rows = []
    for adjective, noun in product(("red", "old", "new"), ("poem", "song", "cake")):
        rows.append({
            "question": f"answer the question {adjective} {noun}",
            "options": ["correct lamp", "wrong chair"],
            "answer": len(rows) % 2,
        })
    return rows


def model(seed: int = 0, *, layers: int = 2, heads: int = 4, kv_heads: int = 2):
    """``(model, tokenizer)``: a random Llama of a few thousand weights, and a word tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    words = tokenizer()
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).eval(), words


def tokenizer():
    """A tokenizer of whole words, small letters only, with `TEMPLATE`."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {}
    for word in SPECIAL_TOKENS + TINY_WORDS:
        vocabulary.setdefault(word, len(vocabulary))
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        unk_token="<unk>",
        pad_token="</s>",
        eos_token="</s>",
        bos_token="<s>",
        chat_template=TEMPLATE,
    )
