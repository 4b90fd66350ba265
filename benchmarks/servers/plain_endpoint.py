"""The baseline: what a tutorial would write. One FastAPI endpoint, no batching, one image at a time.

Run by benchmarks/serving.py as `uvicorn plain_endpoint:app`, with CHECKPOINT in the environment.
"""

import io
import os
from pathlib import Path
from typing import Annotated, Any

import torch
from fastapi import FastAPI, File, UploadFile
from PIL import Image
from torchvision.transforms import ToTensor

from classifier.checkpoint import Checkpoint

checkpoint = Checkpoint.load(Path(os.environ["CHECKPOINT"]))
model = checkpoint.build()
labels = checkpoint.manifest.labels
mean, std = checkpoint.manifest.preprocess.mean[0], checkpoint.manifest.preprocess.std[0]
to_tensor = ToTensor()
app = FastAPI()


@app.post("/predict")
async def predict(file: Annotated[UploadFile, File()]) -> dict[str, Any]:
    image = Image.open(io.BytesIO(await file.read())).convert("L")
    batch = ((to_tensor(image) - mean) / std).unsqueeze(0)
    with torch.no_grad():
        scores = torch.softmax(model(batch), dim=1)[0]
    probabilities, indices = scores.topk(5)
    return {
        "predictions": [
            {"label": labels[index], "index": index, "probability": probability}
            for index, probability in zip(indices.tolist(), probabilities.tolist(), strict=True)
        ]
    }
