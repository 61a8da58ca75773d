"""Hugging Face: a small BERT of random weights and a tokenizer made here; nothing is fetched."""

from __future__ import annotations

import numpy as np
import pytest

import divulge
from adapting import M, N, assert_same

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "film", "a", "the", "plot", "was", "never", "dull", "fine"]
NAMES = ["negative", "neutral", "positive"]


@pytest.fixture
def transformers(require):
    torch = require("torch")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return require("transformers")


@pytest.fixture
def tokenizer(transformers):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=16,
    )


@pytest.fixture
def model(transformers):
    config = transformers.BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=16, num_labels=3, id2label=dict(enumerate(NAMES)),
        label2id={name: i for i, name in enumerate(NAMES)}, initializer_range=0.5,
    )  # fmt: skip
    return transformers.BertForSequenceClassification(config)


def sides():
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS[4:], size=rng.integers(2, 9))) for _ in range(M + N)]
    labels = rng.integers(0, 3, size=M + N)
    return (texts[:M], labels[:M]), (texts[M:], labels[M:])


def by_hand(model, tokenizer):
    """One text at a time: no padding at all."""
    import torch

    training = model.training
    model.eval()
    with torch.no_grad():
        texts = sides()[0][0] + sides()[1][0]
        rows = [model(**tokenizer(text, return_tensors="pt")).logits[0].numpy() for text in texts]
    model.train(training)
    return np.stack(rows)


def tokenised(tokenizer, side):
    """What datasets.Dataset.map leaves: dicts of lists of different lengths, the text, and an id."""
    return [
        {**tokenizer(text), "text": text, "idx": i, "label": int(label)}
        for i, (text, label) in enumerate(zip(*side, strict=True))
    ]


def test_a_pipeline_takes_texts(transformers, model, tokenizer):
    pipe = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer)
    logits = by_hand(model, tokenizer)
    assert_same(divulge.collect(pipe, *sides(), batch_size=20), logits, sides())
    dicts = [[{"text": text, "label": int(label)} for text, label in zip(*side, strict=True)] for side in sides()]
    assert_same(divulge.collect(pipe, *dicts, batch_size=20), logits, sides())
    named = [(texts, [NAMES[label] for label in labels]) for texts, labels in sides()]
    evidence = divulge.collect(pipe, *named, batch_size=20)
    assert_same(evidence, logits, sides())
    assert evidence.classes == tuple(NAMES)


def test_a_trainer_pads_by_its_collator(transformers, model, tokenizer, tmp_path):
    trainer = transformers.Trainer(
        model=model,
        args=transformers.TrainingArguments(
            str(tmp_path), max_steps=2, report_to=[], use_cpu=True, disable_tqdm=True, save_strategy="no",
            logging_strategy="no",
        ),
        train_dataset=tokenised(tokenizer, sides()[0]),
        processing_class=tokenizer,
    )  # fmt: skip
    trainer.train()
    data = [tokenised(tokenizer, side) for side in sides()]
    evidence = divulge.collect(trainer, *data, batch_size=20)
    assert_same(evidence, by_hand(model, tokenizer), sides())
    assert model.training
    own = trainer.predict(data[0])
    np.testing.assert_allclose(evidence.outputs[:M], own.predictions, atol=1e-5)


def test_a_bare_model_takes_tensors_loaders_and_padded_records(model, tokenizer):
    import torch

    logits = by_hand(model, tokenizer)
    padded = [dict(tokenizer(texts, padding=True, return_tensors="pt")) for texts, _ in sides()]
    labels = [torch.from_numpy(labels) for _, labels in sides()]
    pairs = list(zip(padded, labels, strict=True))
    assert_same(divulge.collect(model, *pairs, batch_size=20), logits, sides())
    rows = [[{**{k: v[i] for k, v in one.items()}, "labels": y[i]} for i in range(len(y))] for one, y in pairs]
    assert_same(divulge.collect(model, *rows, batch_size=20), logits, sides())
    loaders = [torch.utils.data.DataLoader(one, batch_size=16) for one in rows]
    assert_same(divulge.collect(model, *loaders), logits, sides())
    lists = [dict(tokenizer(texts, padding=True)) | {"label": labels.tolist()} for texts, labels in sides()]
    assert_same(divulge.collect(model, *lists, batch_size=20), logits, sides())


def test_texts_for_a_model_without_a_tokenizer_are_refused(model):
    with pytest.raises(divulge.InputError, match=r"DV074 .* a bare BertForSequenceClassification"):
        divulge.collect(model, *sides())


def test_training_mode_is_restored_and_dropout_that_stays_is_caught(model, tokenizer, transformers):
    pipe = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer)
    model.train()
    divulge.collect(pipe, *sides())
    assert all(module.training for module in model.modules())
    import torch

    forward = model.classifier.forward
    model.classifier.forward = lambda x: forward(torch.nn.functional.dropout(x, 0.5, training=True))
    with pytest.raises(divulge.InputError, match="DV215"):
        divulge.collect(pipe, *sides())


def test_a_regression_predicts(transformers, model, tokenizer):
    config = model.config.to_dict() | {"num_labels": 1, "id2label": {0: "stars"}, "label2id": {"stars": 0}}
    regressor = transformers.BertForSequenceClassification(transformers.BertConfig(**config))
    pipe = transformers.pipeline("text-classification", model=regressor, tokenizer=tokenizer)
    evidence = divulge.collect(pipe, *[(texts, labels * 0.5) for texts, labels in sides()], batch_size=20)
    assert evidence.task == "regression"
