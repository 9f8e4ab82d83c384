"""From a source's answer to a history that can be trusted: archive, gate, observations, features, versions."""
