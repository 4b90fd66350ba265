"""What tests share: servers, engines, checkpoints, images, raw connections."""
