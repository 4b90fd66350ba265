"""The baseline: what a tutorial would write. One FastAPI endpoint, no batching, one image at a time.

Run by benchmarks/serving/compare.py with uvicorn, with CHECKPOINT in the environment.
"""

import io
import os
from pathlib import Path
from typing import Annotated, Any

import torch
from fastapi import FastAPI, File, UploadFile
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, Resize, ToTensor

from classifier.checkpoint import Checkpoint

checkpoint = Checkpoint.load(Path(os.environ["CHECKPOINT"]))
model = checkpoint.build()
labels, temperature = checkpoint.manifest.labels, checkpoint.manifest.temperature
preprocess = checkpoint.manifest.preprocess
mean, std = (torch.tensor(values).reshape(-1, 1, 1) for values in (preprocess.mean, preprocess.std))
# Digits come in the size that the network wants.
resize = [] if preprocess.crop is None else [Resize(preprocess.resize), CenterCrop(preprocess.crop)]
transform = Compose([*resize, ToTensor()])
app = FastAPI()


@app.post("/predict")
async def predict(file: Annotated[UploadFile, File()]) -> dict[str, Any]:
    image = Image.open(io.BytesIO(await file.read())).convert(preprocess.mode)
    batch = ((transform(image) - mean) / std).unsqueeze(0)
    with torch.no_grad():
        scores = torch.softmax(model(batch) / temperature, dim=1)[0]
    probabilities, indices = scores.topk(5)
    return {
        "predictions": [
            {"label": labels[index], "index": index, "probability": probability}
            for index, probability in zip(indices.tolist(), probabilities.tolist(), strict=True)
        ]
    }
