"""The answers that /openapi.json shows, as a server gave them."""

from typing import Any

_PREDICTION = {"label": "7", "index": 7, "probability": 0.999989}

_LIKE_THE_TRAINING = {"in_distribution": True, "score": 16.54494285583496}

ONE_IMAGE = {"model": "strokes", "version": 3, "predictions": [_PREDICTION], **_LIKE_THE_TRAINING}

SEVERAL_IMAGES = {
    "model": "strokes",
    "version": 3,
    "results": [
        {"filename": "seven.png", "predictions": [_PREDICTION], **_LIKE_THE_TRAINING},
        {
            "filename": "notes.txt",
            "error": {
                "code": "bad_image",
                "detail": "these bytes are no image; send JPEG, PNG, WebP, GIF, BMP or TIFF",
            },
        },
    ],
}

_MODEL = {
    "name": "strokes",
    "served_version": 1,
    "versions": [
        {
            "version": 1,
            "state": "ready",
            "reason": None,
            "architecture": "mnist_cnn",
            "labels": ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"],
            "input": {
                "mode": "L",
                "resize": [28, 28],
                "crop": None,
                "mean": [0.1307],
                "std": [0.3081],
                "interpolation": "bilinear",
                "resizing": "exact",
                "background": 0,
            },
            "metrics": {"split": "test", "samples": 5000, "accuracy": 0.9648, "loss": 0.112924462890625},
            "per_class": None,
            "curve": None,
            "calibration": {"temperature": 0.9905515313148499},
            "out_of_distribution": {"method": "energy", "threshold": 6.320401191711426},
            "provenance": {
                "dataset": {
                    "name": "strokes",
                    "samples": 40000,
                    "fingerprint": "cd8e049e123d9f217fbdd512397352a2ae63a6e58191f00358e436f3dee6e1b3",
                },
                "recipe": {"epochs": 3, "batch_size": 128, "lr": 0.05, "seed": 0},
                "seed": 0,
                "epoch": 3,
                "code_revision": "292a82ca3544174a3b90b4a778d84c49d1f8d863",
                "versions": {"flambeau": "0.1.0", "torch": "2.15.0", "pillow": "13.0.0"},
                "created": "2026-11-24T00:55:47Z",
                "parent": None,
            },
            "imported": None,
            "file_size": 873025,
            "sha256": "dc22cf072b0e852c35c0d2864eff07c590d824ede0ebf8cc518012a082992b17",
            "device": "cpu",
            "loaded_at": "2026-11-24T00:55:51.019902Z",
        }
    ],
}

# By operation and status.
ANSWERS: dict[tuple[str, int], Any] = {
    ("listModels", 200): {"models": [_MODEL]},
    ("getModel", 200): _MODEL,
    ("reloadModel", 200): {"model": "strokes", "served_version": 3, "changed": True, "refused": []},
    ("reloadModel", 409): {
        "model": "strokes",
        "served_version": 3,
        "changed": False,
        "refused": [{"version": 4, "reason": "no safetensors file: its header cannot be read"}],
    },
    ("live", 200): {"status": "live"},
    ("ready", 200): {"status": "ready", "served": {"strokes": 3}},
}

# Of problems, by code.
DETAILS = {
    "bad_request": "Invalid HTTP request received.",
    "bad_multipart": "the multipart body ends before its last boundary",
    "no_file": "send the image in a multipart field named 'file', or as the whole body",
    "not_found": "GET /model",
    "model_not_found": "there is no model 'stroke'; GET /models lists what there is",
    "version_not_found": "there is no version 9 of 'strokes'",
    "version_not_loaded": "version 2 of 'strokes' is on disk, but not loaded",
    "method_not_allowed": "/predict takes POST",
    "upload_too_slow": "the body did not come within 20 seconds",
    "upload_too_large": "a body may have 20,000,000 bytes at the most",
    "too_many_files": "more than 32 images in one request",
    "too_many_pixels": "the image has 10000x8000 pixels; at most 50 million are accepted",
    "unsupported_content_type": (
        "the content type is text/plain; send multipart/form-data, image/* or application/octet-stream"
    ),
    "unsupported_content_encoding": "the content encoding is gzip; send it as it is",
    "unsupported_format": "PDF is not accepted; send JPEG, PNG, WebP, GIF, BMP or TIFF",
    "bad_image": "these bytes are no image; send JPEG, PNG, WebP, GIF, BMP or TIFF",
    "bad_parameter": "top_k must be a whole number from 1, not '0'",
    "ambiguous_model": "several models are served; name one of digits, strokes with ?model=",
    "header_too_large": "a head may have 65,536 bytes at the most",
    "internal_error": "the server's log tells more",
    "prediction_failed": "the network gave scores that are not finite",
    "overloaded": "1024 images are waiting already",
    "not_ready": "the first look at the store is not over",
    "draining": "the server is shutting down",
    "deadline_exceeded": "the deadline passed while the images were waiting",
}
