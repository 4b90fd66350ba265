"""The answers that /openapi.json shows, as a server gave them."""

from typing import Any

_PREDICTION = {"label": "7", "index": 7, "probability": 0.999989}

_LIKE_THE_TRAINING = {"in_distribution": True, "score": 16.69147300720215}

ONE_IMAGE = {"model": "strokes", "version": 2, "predictions": [_PREDICTION], **_LIKE_THE_TRAINING}

SEVERAL_IMAGES = {
    "model": "strokes",
    "version": 2,
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

_INPUT = {
    "mode": "L",
    "resize": [28, 28],
    "crop": None,
    "mean": [0.1307],
    "std": [0.3081],
    "interpolation": "bilinear",
    "resizing": "exact",
    "background": 128,
    "ink_on_paper": True,
}

_MODEL = {
    "name": "strokes",
    "served_version": 2,
    "versions": [
        {
            "version": 2,
            "state": "ready",
            "reason": None,
            "program": "named",
            "exported": None,
            "code": None,
            "architecture": "mnist_cnn",
            "labels": ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"],
            "input": _INPUT,
            "metrics": {
                "split": "test",
                "samples": 5000,
                "accuracy": 0.962,
                "loss": 0.1178355169070687,
                "calibration_error": 0.006507071721979118,
                "uncalibrated_error": 0.006098072850935662,
            },
            "per_class": [
                {"precision": 0.9894291754756871, "recall": 0.9811320754716981, "samples": 477},
                {"precision": 0.9679245283018868, "recall": 0.9790076335877863, "samples": 524},
                {"precision": 0.9670932358318098, "recall": 0.977818853974122, "samples": 541},
                {"precision": 0.9533898305084746, "recall": 0.9146341463414634, "samples": 492},
                {"precision": 0.9584199584199584, "recall": 0.9787685774946921, "samples": 471},
                {"precision": 0.9475806451612904, "recall": 0.9533468559837728, "samples": 493},
                {"precision": 0.9783037475345168, "recall": 0.9763779527559056, "samples": 508},
                {"precision": 0.9784313725490196, "recall": 0.9596153846153846, "samples": 520},
                {"precision": 0.9254658385093167, "recall": 0.9551282051282052, "samples": 468},
                {"precision": 0.9520958083832335, "recall": 0.9426877470355731, "samples": 506},
            ],
            "curve": [
                {
                    "epoch": 1,
                    "loss": 0.10383087479440789,
                    "accuracy": 0.9649473684210527,
                    "held_out_loss": 0.10115379476846252,
                    "held_out_accuracy": 0.967,
                }
            ],
            "calibration": {"temperature": 1.017247635812203},
            "out_of_distribution": {"method": "energy", "threshold": 6.638794898986816},
            "provenance": {
                "dataset": {
                    "name": "strokes",
                    "samples": 40000,
                    "fingerprint": "edd4f751271b6c64a93176b5b180429760dc40020e77d60954969bd1ec651a86",
                },
                "recipe": {
                    "name": "mnist_cnn",
                    "source": {"kind": "strokes", "samples": 40000, "test_samples": 5000},
                    "architecture": "mnist_cnn",
                    "start": "fresh",
                    "trainable": "all",
                    "preprocess": _INPUT,
                    "held_out": 0.05,
                    "epochs": 1,
                    "batch_size": 128,
                    "lr": 0.05,
                    "lr_continued": 0.003,
                    "unfreeze": None,
                    "schedule": "one_cycle",
                    "warm_up": 0.25,
                    "momentum": 0.9,
                    "weight_decay": 0.0005,
                    "label_smoothing": 0.0,
                    "clip": None,
                    "ema": 0.0,
                    "balanced": False,
                    "precision": "fp32",
                    "compiled": False,
                    "augment": {
                        "crop": None,
                        "trivial": False,
                        "flip": False,
                        "shift": 1,
                        "degrees": 0.0,
                        "scale": 0.0,
                        "shear": 0.0,
                        "translate": 0.0,
                        "elastic": 0.0,
                    },
                    "seed": 0,
                },
                "seed": 0,
                "epoch": 1,
                "device": "cpu",
                "threads": 2,
                "code_revision": "4e25fab67a168c8d41ea661a0a394cd6dbb24266",
                "versions": {
                    "flambeau": "0.1.0",
                    "torch": "2.15.0",
                    "torchvision": "0.29.2",
                    "numpy": "2.4.6",
                    "pillow": "13.0.0",
                    "safetensors": "0.8.0",
                },
                "created": "2026-11-24T04:15:15Z",
                "parent": "strokes/1 502d2cc2c2a2d2ade90d940cb97d454ae0bacde5a1999140d503ec71440b6c32",
            },
            "imported": None,
            "file_size": 875489,
            "sha256": "f1f0657ad4824cf319739d985b1c97bcf5a986ab894f9d8b4d2ba3d0359591b6",
            "device": "cpu",
            "loaded_at": "2026-11-24T04:15:42.276228Z",
        }
    ],
    "passed_over": [],
}

# By operation and status.
ANSWERS: dict[tuple[str, int], Any] = {
    ("listModels", 200): {
        "models": [_MODEL],
        "passed_over": [{"path": "ResNet50", "reason": "the names of models are lower-case: call it resnet50"}],
    },
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
    "no_file": (
        "the body is empty; send the image's bytes as the whole body, "
        "or a form (multipart/form-data) with the image in 'file'"
    ),
    "not_found": "GET /model",
    "model_not_found": "there is no model 'stroke'; GET /models lists what there is",
    "version_not_found": "there is no version 9 of 'strokes'",
    "version_not_loaded": "version 2 of 'strokes' is on disk, but not loaded",
    "method_not_allowed": "/predict takes POST or PUT",
    "upload_too_slow": "the body did not come within 20 seconds",
    "upload_too_large": "a body may have 20,000,000 bytes at the most",
    "too_many_files": "more than 32 images in one request",
    "too_many_pixels": "the image has 10000x8000 pixels; at most 50 million are accepted",
    "unsupported_content_type": (
        "the content type is text/plain, and the body is no image; send the image's bytes as the whole body, "
        "or a form (multipart/form-data) with the image in 'file'"
    ),
    "unsupported_content_encoding": "the content encoding is gzip; send the image as it is, without Content-Encoding",
    "unsupported_format": "PDF is not accepted; send JPEG, PNG, WebP, GIF, BMP or TIFF",
    "bad_image": "these bytes are no image; send JPEG, PNG, WebP, GIF, BMP or TIFF",
    "bad_parameter": "top_k must be a whole number from 1, not '0'",
    "ambiguous_model": "several models are served; name one of digits, strokes with ?model=",
    "header_too_large": "the headers may have 65,536 bytes at the most",
    "internal_error": "the server's log tells more",
    "prediction_failed": "the network gave scores that are not finite",
    "overloaded": "1024 images are waiting already",
    "not_ready": "the first look at the store is not over",
    "draining": "the server is shutting down",
    "behind": "this server answers by version 2 of strokes; version 3 or a newer one is wanted",
    "deadline_exceeded": "the deadline passed while the images were waiting",
}
