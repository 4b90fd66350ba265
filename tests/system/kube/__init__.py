"""Plays the Deployment for real: pods by podman, behind haproxy, under load (`make kube-check`).

Podman makes pods of a manifest, but it has no rolling update, no probes over HTTP and no Service. The script stands in
for those as Kubernetes does them. Nothing here is collected by pytest.
"""
